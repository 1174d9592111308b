//! `drain`: takes an instance out of service and waits until its callers know.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tower_eureka::model::InstanceStatus::{self, OutOfService, Up};
use tower_eureka::transport::Transport;

use super::Context;
use super::failure::{Cause, Failure, Outcome};
use super::instance::{Named, set_status};
use super::output::Output;
use super::target::{Target, seconds};
use super::text::{clean, duration};

/// Time between two updates of the countdown.
const TICK: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
pub(crate) struct Drain {
    #[command(flatten)]
    named: Named,

    /// Time until its callers know
    #[arg(long, value_name = "SECONDS", default_value = "100", value_parser = seconds)]
    wait: Duration,

    /// Cancel the lease afterwards
    #[arg(long)]
    cancel: bool,

    /// Print a JSON object for each step
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: Target,
}

pub(super) const HELP: &str = "\
The default wait is for Java with default settings: 30 s cache of the server,
30 s fetch interval and 35 s list of Spring Cloud LoadBalancer of the callers,
and 5 s for replication. Interrupted, it leaves the instance OUT_OF_SERVICE;
`tower-eureka status clear` takes it back. Afterwards each server of --url is
asked, so name all nodes of a cluster there.

Example, before a process is stopped:
  tower-eureka drain orders 10.0.0.1:orders:8080 && systemctl stop orders

Exit codes: 0 drained, 2 wrong usage, 3 no server responded, 4 no such
instance, 5 refused, changed meanwhile or still UP at a server, 130 interrupted";

impl Drain {
    pub(super) async fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let Self { named, wait, cancel, json, target } = self;
        let eureka = target.client(&context.settings)?;
        let (transport, output) = (eureka.transport(), Output::new(json));
        let step = |name: &str, line: String| {
            let object = json!({ "step": name, "app": named.app.to_uppercase(), "instance": named.id, "waitSeconds": wait.as_secs_f64() });
            output.either(&object, &line)
        };
        let before = named.fetch(transport).await?;
        set_status(&named, OutOfService, transport).await?;
        let display = named.display();
        let waits = duration(wait);
        step(
            "outOfService",
            format!("{display} {} -> {OutOfService}, waiting {waits} until its callers know", before.status()),
        )?;
        if !countdown(wait).await {
            context.note(format_args!("{display} stays {OutOfService}; tower-eureka status clear takes it back"));
            return Ok(Outcome::Interrupted);
        }
        match present(&named, transport, context).await? {
            // Its process has stopped meanwhile.
            None => step("gone", format!("{display} has left the registry"))?,
            Some(status) => {
                step("drained", format!("{display} is {status} and drained"))?;
                if cancel && transport.cancel(&named.app, &named.id).await? {
                    step("cancelled", format!("{display} cancelled; its process registers again if it still runs"))?;
                }
            }
        }
        Ok(Outcome::Done)
    }
}

/// Asks each server for the status of the instance. Returns `None` if no server has it.
///
/// # Errors
/// When it is UP at one of them, or none responded.
async fn present(named: &Named, transport: &Transport, context: &Context) -> Result<Option<InstanceStatus>, Failure> {
    let display = named.display();
    let mut asked = JoinSet::new();
    for (server, transport) in transport.each_server() {
        let Named { app, id } = named.clone();
        asked.spawn(async move { (clean(server.url()), transport.instance(&app, &id).await) });
    }
    let (mut statuses, mut errors) = (Vec::new(), Vec::new());
    for (url, instance) in asked.join_all().await {
        match instance {
            Ok(instance) => statuses.push((url, instance.map(|instance| instance.status()))),
            Err(error) => errors.push(error),
        }
    }
    if statuses.is_empty() {
        context.note(format_args!("{display} was set {OutOfService}, and its present status is unknown"));
        return Err(errors.pop().map_or_else(|| named.unknown(), Failure::from));
    }
    let mut up: Vec<_> = statuses.iter().filter(|(_, status)| *status == Some(Up)).map(|(url, _)| &**url).collect();
    if up.len() == statuses.len() {
        let text = format!("{display} is UP again, since somebody else changed its status; it is not drained");
        return Err(Failure::new(Cause::Refused, text));
    }
    if !up.is_empty() {
        up.sort_unstable();
        let urls = up.join(", ");
        let text = format!("{display} is still UP at {urls}, which does not have the change; it is not drained");
        return Err(Failure::new(Cause::Refused, text));
    }
    for error in errors {
        context.note(format_args!("a server does not tell whether it has the change: cannot {error}"));
    }
    Ok(statuses.into_iter().find_map(|(_, status)| status))
}

/// Waits, and shows the rest of the time on a terminal. Returns `false` if the user interrupts it.
async fn countdown(wait: Duration) -> bool {
    let end = Instant::now() + wait;
    let is_shown = io::stderr().is_terminal();
    let counting = async {
        while Instant::now() < end {
            if is_shown {
                let left = duration(end.duration_since(Instant::now()));
                let _ = write!(io::stderr(), "\r{left} left \u{1b}[K");
            }
            sleep_until(end.min(Instant::now() + TICK)).await;
        }
    };
    let ended = tokio::select! {
        () = counting => true,
        _ = tokio::signal::ctrl_c() => false,
    };
    if is_shown {
        let _ = write!(io::stderr(), "\r\u{1b}[K");
    }
    ended
}
