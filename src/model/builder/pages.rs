use super::super::{Instance, MANAGEMENT_PORT_KEY, Port, host_in_url};
use super::InstanceBuilder;

/// Path of the health check in a Spring application.
const HEALTH_PATH: &str = "/actuator/health";
/// Path of the status page in a Spring application.
const INFO_PATH: &str = "/actuator/info";

/// Placeholder in the URL of a page for the host name, as in the Netflix client.
pub(crate) const HOST_PLACEHOLDER: &str = "${eureka.hostname}";

impl InstanceBuilder {
    /// Sets the absolute URL of the home page. Defaults to `http://host:port/`.
    ///
    /// In this URL and in those of the other pages, `${eureka.hostname}` stands for the registered
    /// host name.
    pub fn home_page_url(mut self, url: impl Into<String>) -> Self {
        self.home_page_url = Some(url.into());
        self
    }

    /// Sets the path of the home page at the instance's host and port, without the
    /// [`context_path`](Self::context_path). Defaults to `/`.
    ///
    /// The [`home_page_url`](Self::home_page_url) has precedence.
    pub fn home_page_path(mut self, path: impl Into<String>) -> Self {
        self.home_page_path = Some(path.into());
        self
    }

    /// Sets the absolute URL of the status page. Defaults to none, or to the info page of the
    /// registrar's layer.
    pub fn status_page_url(mut self, url: impl Into<String>) -> Self {
        self.status_page_url = Some(url.into());
        self
    }

    /// Sets the path of the status page at the instance's host and port, after the
    /// [`context_path`](Self::context_path). The registrar's layer serves its info page there.
    ///
    /// The [`status_page_url`](Self::status_page_url) has precedence.
    pub fn status_page_path(mut self, path: impl Into<String>) -> Self {
        self.status_page_path = Some(path.into());
        self
    }

    /// Sets the absolute URL of the health check. Defaults to none, or to the health page of the
    /// registrar's layer.
    pub fn health_check_url(mut self, url: impl Into<String>) -> Self {
        self.health_check_url = Some(url.into());
        self
    }

    /// Sets the path of the health check at the instance's host and port, after the
    /// [`context_path`](Self::context_path). If the port for HTTPS is enabled, this sets the
    /// [`secure_health_check_url`](Self::secure_health_check_url) as well. The registrar's layer
    /// serves its health page there.
    ///
    /// The [`health_check_url`](Self::health_check_url) has precedence.
    pub fn health_check_path(mut self, path: impl Into<String>) -> Self {
        self.health_check_path = Some(path.into());
        self
    }

    /// Sets the absolute URL of the health check for HTTPS callers. Without it they use
    /// [`health_check_url`](Self::health_check_url).
    pub fn secure_health_check_url(mut self, url: impl Into<String>) -> Self {
        self.secure_health_check_url = Some(url.into());
        self
    }

    /// Sets the path below which the server serves everything, and which is put in front of the
    /// paths of the status page and the health check. Defaults to none.
    pub fn context_path(mut self, path: impl Into<String>) -> Self {
        self.context_path = Some(path.into());
        self
    }

    /// Sets the port of the status page and the health check, if they have their own. Defaults to
    /// the port of the instance.
    ///
    /// The URLs then default to `/actuator/info` and `/actuator/health` at this port, without the
    /// [`context_path`](Self::context_path). The port is also registered as metadata
    /// `management.port`, which dashboards read.
    pub fn management_port(mut self, port: u16) -> Self {
        self.management_port = Some(port);
        self
    }

    /// Sets a further path in front of the paths of the status page and the health check. Defaults
    /// to none.
    ///
    /// It follows the [`context_path`](Self::context_path), and replaces it if there is a
    /// [`management_port`](Self::management_port).
    pub fn management_context_path(mut self, path: impl Into<String>) -> Self {
        self.management_context_path = Some(path.into());
        self
    }

    /// Returns the path in front of the paths of the status page and the health check.
    pub(super) fn page_prefix(&self) -> String {
        let path = |path: &Option<String>| path.as_deref().map(below).unwrap_or_default();
        match self.management_port {
            Some(_) => path(&self.management_context_path),
            None => path(&self.context_path) + &path(&self.management_context_path),
        }
    }

    /// Returns the paths of the health check and the status page on the server.
    pub(super) fn page_paths(&self) -> [Box<str>; 2] {
        let prefix = self.page_prefix();
        [(&self.health_check_path, HEALTH_PATH), (&self.status_page_path, INFO_PATH)].map(|(path, default)| {
            let path = path.as_deref().filter(|path| !path.is_empty()).unwrap_or(default);
            format!("{prefix}{}", with_slash(path)).into()
        })
    }

    /// Sets the URLs of an instance that is complete but for them, and `management.port`.
    pub(super) fn set_pages(self, mut instance: Instance) -> Instance {
        let prefix = self.page_prefix();
        let own_port = self.management_port.is_some();
        let [plain, secure] = origins(&instance, self.management_port);
        let (home, _) = main_origin(&instance);
        let page = plain.as_deref().or(secure.as_deref()).unwrap_or(&home);
        let at = |origin: &str, path: &str| format!("{origin}{prefix}{}", with_slash(path));
        let path = |path: Option<String>, default: &str| {
            path.filter(|path| !path.is_empty()).or_else(|| own_port.then(|| default.to_owned()))
        };
        let status_path = path(self.status_page_path, INFO_PATH);
        let health_path = path(self.health_check_path, HEALTH_PATH);
        let home_path = self.home_page_path.filter(|path| !path.is_empty()).unwrap_or_else(|| "/".into());
        let host = host_in_url(instance.host().unwrap_or_default());
        let given = |url: Option<String>| url.map(|url| url.replace(HOST_PLACEHOLDER, &host));
        // An empty URL keeps a page from being registered.
        let home_url = given(self.home_page_url).unwrap_or_else(|| format!("{home}{}", with_slash(&home_path)));
        let status_url = given(self.status_page_url).or_else(|| status_path.map(|path| at(page, &path)));
        let health_url = given(self.health_check_url).or_else(|| health_path.as_ref().map(|path| at(page, path)));
        let secure_url = given(self.secure_health_check_url)
            .or_else(|| secure.as_ref().zip(health_path.as_ref()).map(|(origin, path)| at(origin, path)));
        instance.home_page_url = Some(home_url.into());
        instance.status_page_url = status_url.map(Into::into);
        instance.health_check_url = health_url.map(Into::into);
        instance.secure_health_check_url = secure_url.map(Into::into);
        if let Some(port) = self.management_port {
            add_management_port(&mut instance, port.into());
        }
        instance
    }
}

#[cfg(feature = "client")]
impl Instance {
    /// Returns the instance with the URLs of the pages that its server serves at these paths, for
    /// the pages that have no URL yet. The paths include the context path.
    ///
    /// As in a Spring application, the metadata `management.port` is then the port of the pages.
    pub(crate) fn with_pages(&self, health: Option<&str>, info: Option<&str>) -> Self {
        let (main, port) = main_origin(self);
        let [_, secure] = origins(self, None);
        let at = |origin: &str, path: &str| Some(format!("{origin}{}", with_slash(path)).into());
        let mut instance = self.clone();
        if let Some(path) = health
            && self.health_check_url.is_none()
        {
            instance.health_check_url = at(&main, path);
            if let Some(secure) = secure
                && self.secure_health_check_url.is_none()
            {
                instance.secure_health_check_url = at(&secure, path);
            }
        }
        if let Some(path) = info
            && self.status_page_url.is_none()
        {
            instance.status_page_url = at(&main, path);
        }
        if health.is_some() || info.is_some() {
            add_management_port(&mut instance, port);
        }
        instance
    }

    /// Returns the paths of the health check and the status page on the server: those that were
    /// set, else those of a Spring application, each after the context path.
    pub(crate) fn page_paths(&self) -> [&str; 2] {
        self.local.facts().map_or([HEALTH_PATH, INFO_PATH], |facts| facts.page_paths.each_ref().map(|path| &**path))
    }
}

/// Returns scheme, host and port for plain HTTP and for HTTPS, without those that are disabled. A
/// port that is given replaces those of the instance.
fn origins(instance: &Instance, port: Option<u16>) -> [Option<String>; 2] {
    let host = host_in_url(instance.host().unwrap_or_default());
    [("http", instance.port), ("https", instance.secure_port)].map(|(scheme, of)| {
        let number = port.map_or(of.number, Into::into);
        of.enabled.then(|| format!("{scheme}://{host}:{number}"))
    })
}

/// Returns scheme, host and port that callers use by default, and the port.
fn main_origin(instance: &Instance) -> (String, i32) {
    let secure_only = instance.secure_port.enabled && !instance.port.enabled;
    let (scheme, Port { number, .. }) =
        if secure_only { ("https", instance.secure_port) } else { ("http", instance.port) };
    (format!("{scheme}://{}:{number}", host_in_url(instance.host().unwrap_or_default())), number)
}

/// Sets the metadata `management.port`, unless the user has set it.
fn add_management_port(instance: &mut Instance, port: i32) {
    if instance.metadata.get(MANAGEMENT_PORT_KEY).is_none() {
        instance.metadata.insert(MANAGEMENT_PORT_KEY, port.to_string());
    }
}

/// Returns a path that begins with a slash.
fn with_slash(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}

/// Returns a path that begins with a slash and does not end with one; empty for the root.
fn below(path: &str) -> String {
    let path = path.trim_matches('/');
    if path.is_empty() { String::new() } else { format!("/{path}") }
}
