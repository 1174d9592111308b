//! Arguments with the names of Spring properties, and their part of the help text.

use tower_eureka::server::Property;

/// Splits the arguments into the binary's own ones and the settings, which have a dot in their
/// name: `--name=value` or `--name value`. Returns the latter as `--name=value`.
pub(crate) fn split(arguments: Vec<String>) -> Result<(Vec<String>, Vec<String>), String> {
    let (mut own, mut settings) = (Vec::new(), Vec::new());
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        let name = argument.split('=').next().unwrap_or_default();
        if !name.starts_with("--") || !name.contains('.') {
            own.push(argument);
        } else if argument.contains('=') {
            settings.push(argument);
        } else {
            let value = arguments.next_if(|next| !next.starts_with("--"));
            let value = value.ok_or_else(|| format!("{argument} needs a value: {argument}=..."))?;
            settings.push(format!("{argument}={value}"));
        }
    }
    Ok((own, settings))
}

/// End of the help text of `serve`, in at most 80 columns.
pub(crate) const SERVE_HELP: &str = "\
Settings are those of a Spring Cloud Eureka server, as arguments such as
--server.port=8761, as variables such as SERVER_PORT, and in application.yml.
`tower-eureka settings` lists them, and `tower-eureka config` checks them.

Signals: SIGTERM, SIGHUP, SIGQUIT and Ctrl-C stop the server. Requests in
flight have 5 s, and queued changes are sent to the peers. A second one stops
it at once. SIGUSR1 reads certificates, users and keys again.

Probes: /actuator/health is 200 once the node is open for traffic, and 503
until then. RUST_LOG=debug sets the level of the log.

Exit codes: 0 stopped, 1 cannot start, 2 wrong usage, 3 stopped before a peer
had all changes, 128 plus the number of a second signal";

/// End of the help text of `config`, in at most 80 columns.
pub(crate) const CONFIG_HELP: &str = "\
It reads the same arguments, variables and files as `serve`, writes the same
warnings to stderr, and fails if `serve` would not start. Each line has a
setting, its value and its source. `tower-eureka settings` lists all settings.

Examples:
  tower-eureka config
  tower-eureka config --spring.config.location=file:/etc/registry/
  SPRING_PROFILES_ACTIVE=prod tower-eureka config | grep service-url

Exit codes: 0 valid, 1 invalid, 2 wrong usage";

/// Returns the list of the properties, with the text before it.
pub(crate) fn properties() -> String {
    let mut text = String::from(
        "Signals: SIGTERM, SIGHUP, SIGQUIT and Ctrl-C stop the server. Requests in flight have 5 s to finish, and queued\n\
         changes are sent to the peers. A second signal stops it immediately. SIGHUP stays ignored under nohup. SIGUSR1\n\
         reads the certificates, users and keys again.\n\
         \n\
         Exit codes: 0 after a stop at which all queued changes were sent; 1 if the server cannot start; 2 for wrong arguments;\n\
         3 after a stop at which a peer did not receive all changes; 128 plus the signal's number after a second signal.\n\
         \n\
         Probes: / and /actuator/health respond with 200 once the node is open for traffic, and with 503 until then;\n\
         /actuator/health/liveness always responds with 200. The variable RUST_LOG sets the level of the log: RUST_LOG=debug.\n\
         \n\
         Settings of a Spring Cloud Eureka server. Dashes and case do not matter. Each is also an environment variable in\n\
         upper case, with underscores for dots and without dashes: EUREKA_SERVER_ENABLESELFPRESERVATION, and a setting in\n\
         application.yml or application.properties in ./ or ./config/. --spring.profiles.active, --spring.config.location and\n\
         SPRING_APPLICATION_JSON work as in Spring. Unknown variables are errors, like unknown arguments. SPRING_SECURITY_USER_PASSWORD locks the registry.\n\
         \n  --server.port <PORT>\n          port to listen on, on all interfaces if no address is given\n\
         \n  --server.address <HOST>\n          address to listen on\n\
         \n  --management.server.port <PORT>\n          port of the management endpoints [default: that of the registry]\n\
         \n  --management.server.address <HOST>\n          address of the management endpoints [default: that of the registry]\n\
         \n  --management.server.ssl.enabled <BOOL>\n          HTTPS for the management endpoints [default: as for the registry]\n",
    );
    for property in Property::all() {
        text.push_str(&format!("\n  {property}\n"));
    }
    text
}
