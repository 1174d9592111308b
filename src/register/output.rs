use std::process::ExitCode;

/// Output of a server that [`Registrar::serve`](super::Registrar::serve) runs.
///
/// Implemented for `()`, for [`ExitCode`], for `Result<T, E>` with such a `T`, and for tuples of up
/// to four such outputs, as `tokio::join!` and `tokio::try_join!` return them for several servers
/// under one instance. That covers `axum::serve` and tonic's servers. Implement it for a server
/// with another output.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the output of a server",
    label = "the server's future has to return `()`, `ExitCode`, a `Result` or a tuple of them",
    note = "end the server's future with `.map(drop)` or `Ok(())`, or implement `ServerOutput` for its output"
)]
pub trait ServerOutput {
    /// Returns the output of a server that did not end within the grace time.
    fn timed_out() -> Self;
}

impl ServerOutput for () {
    fn timed_out() {}
}

/// The exit code of a server that did not end in time is [`ExitCode::SUCCESS`], since a shutdown
/// that was asked for is no failure.
impl ServerOutput for ExitCode {
    fn timed_out() -> Self {
        Self::SUCCESS
    }
}

impl<T: ServerOutput, E> ServerOutput for Result<T, E> {
    fn timed_out() -> Self {
        Ok(T::timed_out())
    }
}

impl<A: ServerOutput> ServerOutput for (A,) {
    fn timed_out() -> Self {
        (A::timed_out(),)
    }
}

impl<A: ServerOutput, B: ServerOutput> ServerOutput for (A, B) {
    fn timed_out() -> Self {
        (A::timed_out(), B::timed_out())
    }
}

impl<A: ServerOutput, B: ServerOutput, C: ServerOutput> ServerOutput for (A, B, C) {
    fn timed_out() -> Self {
        (A::timed_out(), B::timed_out(), C::timed_out())
    }
}

impl<A: ServerOutput, B: ServerOutput, C: ServerOutput, D: ServerOutput> ServerOutput for (A, B, C, D) {
    fn timed_out() -> Self {
        (A::timed_out(), B::timed_out(), C::timed_out(), D::timed_out())
    }
}
