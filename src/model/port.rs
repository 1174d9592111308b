/// A port, and whether the instance listens on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Port {
    /// The number. Wider than 16 bits because the field holds whatever a client sent.
    pub number: i32,
    /// Whether callers may use it.
    pub enabled: bool,
}

impl Port {
    /// What an instance without a `port` means: 7001, enabled.
    pub const DEFAULT_PLAIN: Self = Self { number: 7001, enabled: true };
    /// What an instance without a `securePort` means: 7002, disabled.
    pub const DEFAULT_SECURE: Self = Self { number: 7002, enabled: false };

    /// The number as something that can be connected to: enabled and between 1 and 65,535.
    pub fn usable(self) -> Option<u16> {
        u16::try_from(self.number).ok().filter(|&n| self.enabled && n != 0)
    }
}
