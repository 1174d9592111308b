/// Port of an instance, enabled or disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Port {
    /// Number as sent by the client, which may be no valid port number.
    pub number: i32,
    /// `true` if the instance listens on the port.
    pub enabled: bool,
}

impl Port {
    /// Port of an instance that was sent without `port`: 7001, enabled.
    pub const DEFAULT_PLAIN: Self = Self { number: 7001, enabled: true };
    /// Secure port of an instance that was sent without `securePort`: 7002, disabled.
    pub const DEFAULT_SECURE: Self = Self { number: 7002, enabled: false };

    /// Returns the number if the port is enabled and the number is from 1 to 65,535.
    pub fn usable(self) -> Option<u16> {
        u16::try_from(self.number).ok().filter(|&n| self.enabled && n != 0)
    }
}
