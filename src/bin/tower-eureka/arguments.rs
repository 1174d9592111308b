//! Arguments with the names of Spring properties, and their part of the help text.

use tower_eureka::server::Property;

/// Prefixes of the arguments that name Spring properties.
const PROPERTY_PREFIXES: [&str; 3] = ["--eureka.", "--spring.", "--server."];

/// Argument that sets a Spring property.
pub(crate) struct Given {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl Given {
    /// Returns true if the property has this name, compared as in Spring.
    pub(crate) fn is(&self, name: &str) -> bool {
        let relaxed = |name: &str| name.replace(['-', '_'], "").to_ascii_lowercase();
        relaxed(&self.name) == relaxed(name)
    }
}

/// Splits the arguments into the binary's own ones and the properties, which are `--name=value` or
/// `--name value`.
pub(crate) fn split(arguments: Vec<String>) -> Result<(Vec<String>, Vec<Given>), String> {
    let (mut own, mut given) = (Vec::new(), Vec::new());
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        if !PROPERTY_PREFIXES.iter().any(|prefix| argument.starts_with(prefix)) {
            own.push(argument);
            continue;
        }
        let property = argument.trim_start_matches("--");
        let (name, value) = match property.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => {
                let value = arguments.next_if(|next| !next.starts_with("--"));
                (property.to_owned(), value.ok_or_else(|| format!("{argument} needs a value: {argument}=..."))?)
            }
        };
        given.push(Given { name, value });
    }
    Ok((own, given))
}

/// Returns the part of the help text that lists the properties.
pub(crate) fn properties() -> String {
    let mut text = String::from(
        "Signals: SIGTERM, SIGHUP, SIGQUIT and Ctrl-C stop the server. Requests in flight have 5 s to finish, and queued changes\n\
         are sent to the peers. A second signal stops it immediately, unless it is SIGHUP. SIGHUP stays ignored under nohup.\n\
         \n\
         Exit codes: 0 after a stop at which all queued changes were sent; 1 if the server cannot start; 2 for wrong arguments;\n\
         3 after a stop at which a peer did not receive all changes; 128 plus the signal's number after a second signal.\n\
         \n\
         Probes: / and /actuator/health respond with 200 once the node is open for traffic, and with 503 until then;\n\
         /actuator/health/liveness always responds with 200. The variable RUST_LOG sets the level of the log: RUST_LOG=debug.\n\
         \n\
         Settings of a Spring Cloud Eureka server. Dashes and case do not matter. Each is also an environment variable in\n\
         upper case, with underscores for dots and without dashes: EUREKA_SERVER_ENABLESELFPRESERVATION. Unknown variables\n\
         are errors, like unknown arguments. The server does not start with SPRING_SECURITY_* or SERVER_SSL_*, which it\n\
         does not support yet.\n\
         \n  --server.port <PORT>\n          port to listen on, on all interfaces if no address is given\n\
         \n  --server.address <HOST>\n          address to listen on\n",
    );
    for property in Property::all() {
        text.push_str(&format!("\n  {property}\n"));
    }
    text
}

/// Returns `true` for the variable that Kubernetes sets in each container for a service named
/// `server`: `SERVER_PORT=tcp://10.0.0.1:8761`.
fn is_service_link(variable: &str, value: &str) -> bool {
    let is_link = variable == "SERVER_PORT" && value.contains("://");
    if is_link {
        tracing::warn!("{variable} is ignored: it is set by Kubernetes for a service named server");
    }
    is_link
}

/// Returns the value of the last argument, or else of the environment variable, and the name of its
/// source.
pub(crate) fn server_setting(given: &[Given], name: &str) -> Result<Option<(String, String)>, String> {
    let argument = given.iter().rev().find(|given| given.is(name));
    let found = match argument {
        Some(Given { name, value }) => Some((format!("--{name}"), value.clone())),
        None => {
            let variable = name.replace('.', "_");
            let mut variables: Vec<_> = std::env::vars_os()
                .filter_map(|(key, value)| Some((key.into_string().ok()?, value.to_string_lossy().into_owned())))
                .filter(|(key, value)| {
                    let is_named = key.eq_ignore_ascii_case(&variable) || key.eq_ignore_ascii_case(name);
                    is_named && !value.trim().is_empty() && !is_service_link(key, value)
                })
                .collect();
            // Of several spellings the one in upper case counts.
            variables.sort();
            variables.into_iter().next()
        }
    };
    match found {
        Some((name, value)) if value.contains("${") => {
            Err(format!("{name} has a placeholder: ${{...}} is not resolved here"))
        }
        found => Ok(found.map(|(name, value)| (name, value.trim().to_owned()))),
    }
}
