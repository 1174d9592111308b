//! Pages that the layer serves itself: health and info, as Spring Boot's actuator serves them.
//!
//! ```text
//!  GET /actuator                             links to the pages
//!  GET /actuator/health                      status, components, groups
//!  GET /actuator/health/COMPONENT            one component
//!  GET /actuator/health/liveness             group: the process works
//!  GET /actuator/health/readiness            group: the process accepts calls
//!  GET /actuator/info                        the user's own JSON
//! ```

mod body;
mod health;
mod published;
mod respond;

use std::sync::Arc;

use bytes::Bytes;

use crate::model::{Instance, Port};

pub use body::RegistrationBody;
pub(super) use published::PublishedPages;
pub(super) use respond::{Reply, refusal};

/// Paths and content of the pages of one layer. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Pages(Arc<Content>);

#[derive(Clone, Debug)]
struct Content {
    health: Option<Box<str>>,
    info: Option<Box<str>>,
    /// Parent of both pages, which links to them.
    index: Option<Box<str>>,
    /// Longest start that all paths have in common. Most requests differ from it at once.
    common: Box<str>,
    /// Encoded JSON of the info page.
    info_json: Bytes,
    /// True if the health page has the reasons of the health checks.
    shows_details: bool,
    /// Ports for plain HTTP and for HTTPS that the instance has, which the links follow.
    ports: [Option<i32>; 2],
    /// Pages of the instance that are left to the server, with their paths.
    left: Vec<(&'static str, Box<str>)>,
}

/// Page that a path stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Page<'a> {
    Index,
    /// The health page, with the rest of the path after its own.
    Health(&'a str),
    Info,
}

impl Default for Pages {
    fn default() -> Self {
        let content = Content {
            health: Some("/actuator/health".into()),
            info: Some("/actuator/info".into()),
            index: None,
            common: Box::default(),
            info_json: Bytes::from_static(b"{}"),
            shows_details: false,
            ports: [None, None],
            left: Vec::new(),
        };
        Self(Arc::new(content.indexed()))
    }
}

impl Pages {
    /// Returns the pages of an instance. A page whose path the layer cannot serve is left to the
    /// server, for example `/` or a path with a query.
    pub(super) fn of(instance: &Instance) -> Self {
        let [health, info] = instance.page_paths();
        let enabled = |port: Port| port.enabled.then_some(port.number);
        Self::default().changed(|content| {
            (content.health, content.info) = (normalized(health), normalized(info));
            content.ports = [enabled(instance.port()), enabled(instance.secure_port())];
            for (page, path, served) in [("health", health, &content.health), ("info", info, &content.info)] {
                if served.is_none() {
                    content.left.push((page, path.into()));
                }
            }
        })
    }

    /// Logs the pages that are left to the server.
    pub(super) fn log_left(&self) {
        for (page, path) in &self.0.left {
            tracing::info!(
                page,
                path = &**path,
                "the registration layer cannot serve a page at this path, the server has to"
            );
        }
    }

    fn changed(&self, change: impl FnOnce(&mut Content)) -> Self {
        let mut content = (*self.0).clone();
        change(&mut content);
        Self(Arc::new(content.indexed()))
    }

    pub(super) fn with_health(&self, path: Option<&str>) -> Self {
        self.changed(|content| content.health = path.map(valid))
    }

    pub(super) fn with_info(&self, path: Option<&str>) -> Self {
        self.changed(|content| content.info = path.map(valid))
    }

    /// Switches both pages off.
    pub(super) fn without_any(&self) -> Self {
        self.changed(|content| (content.health, content.info) = (None, None))
    }

    pub(super) fn with_info_json(&self, json: &serde_json::Value) -> Self {
        self.changed(|content| content.info_json = json.to_string().into())
    }

    pub(super) fn with_details(&self, shows_details: bool) -> Self {
        self.changed(|content| content.shows_details = shows_details)
    }

    pub(super) fn health_path(&self) -> Option<&str> {
        self.0.health.as_deref()
    }

    pub(super) fn info_path(&self) -> Option<&str> {
        self.0.info.as_deref()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.health.is_none() && self.0.info.is_none()
    }

    /// Returns the page at a path.
    pub(super) fn at<'a>(&self, path: &'a str) -> Option<Page<'a>> {
        let content = &*self.0;
        if !path.starts_with(&*content.common) || self.is_empty() {
            return None;
        }
        if let Some(rest) = content.health.as_deref().and_then(|health| path.strip_prefix(health))
            && (rest.is_empty() || rest.starts_with('/'))
        {
            return Some(Page::Health(rest.trim_matches('/')));
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let is = |page: &Option<Box<str>>| page.as_deref() == Some(path);
        match () {
            () if is(&content.info) => Some(Page::Info),
            () if is(&content.index) => Some(Page::Index),
            () => None,
        }
    }
}

impl Content {
    /// Returns the content with the paths that follow from those of the pages.
    fn indexed(mut self) -> Self {
        fn parent(path: &Option<Box<str>>) -> &str {
            path.as_deref().and_then(|path| path.rsplit_once('/')).map(|(parent, _)| parent).unwrap_or_default()
        }
        let (above_health, above_info) = (parent(&self.health), parent(&self.info));
        let index = (above_health == above_info && !above_health.is_empty()).then(|| above_health.into());
        self.common = match (&index, &self.health, &self.info) {
            (Some(index), ..) => Box::clone(index),
            (None, Some(health), Some(info)) => {
                let common = health.chars().zip(info.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a);
                common.collect::<String>().into()
            }
            (None, one, other) => one.clone().or_else(|| other.clone()).unwrap_or_default(),
        };
        self.index = index;
        self
    }
}

/// Returns a path that begins with a slash and ends without one. `None` if no page can be served
/// at it.
fn normalized(path: &str) -> Option<Box<str>> {
    let path = path.trim().trim_matches('/');
    let is_page = !path.is_empty() && !path.contains(['?', '#', '{', '}', '*']) && !path.contains(char::is_whitespace);
    is_page.then(|| format!("/{path}").into())
}

/// Returns the normalized path that the user has set for a page.
fn valid(path: &str) -> Box<str> {
    normalized(path).unwrap_or_else(|| {
        panic!("a page needs a path such as /actuator/health, not {path:?} (None switches the page off)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_is_found_by_its_exact_path_and_health_also_below_it() {
        let pages = Pages::default();
        for (path, page) in [
            ("/actuator", Some(Page::Index)),
            ("/actuator/", Some(Page::Index)),
            ("/actuator/health", Some(Page::Health(""))),
            ("/actuator/health/", Some(Page::Health(""))),
            ("/actuator/health/readiness/db", Some(Page::Health("readiness/db"))),
            ("/actuator/info", Some(Page::Info)),
            ("/actuator/infos", None),
            ("/actuator/info/more", None),
            ("/actuator/healthy", None),
            ("/actuators", None),
            ("/actuator/env", None),
            ("/orders/actuator/health", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(pages.at(path), page, "{path}");
        }
    }

    #[test]
    fn paths_can_be_set_and_switched_off() {
        let pages = Pages::default().with_health(Some("orders/up/")).with_info(Some("/orders/about"));
        assert_eq!(pages.at("/orders/up/db"), Some(Page::Health("db")));
        assert_eq!(pages.at("/orders/about"), Some(Page::Info));
        assert_eq!(pages.at("/orders"), Some(Page::Index));
        assert_eq!(pages.at("/actuator/health"), None);

        let pages = Pages::default().with_health(Some("/healthz"));
        assert_eq!((pages.at("/healthz"), pages.at("/actuator/info")), (Some(Page::Health("")), Some(Page::Info)));
        assert_eq!((pages.at("/"), pages.at("/actuator")), (None, None), "there is no common parent");

        let pages = Pages::default().with_info(None);
        assert_eq!((pages.at("/actuator/health"), pages.at("/actuator/info")), (Some(Page::Health("")), None));
        assert_eq!(pages.at("/actuator"), None);
        let none = pages.without_any();
        assert!(none.is_empty());
        for path in ["", "/", "/actuator/health", "/actuator/info"] {
            assert_eq!(none.at(path), None, "{path}");
        }
    }

    #[test]
    fn page_whose_path_cannot_be_served_is_left_to_the_server() {
        let of = |health: &str| {
            let instance = Instance::builder("orders").ip_addr("10.0.0.1").port(80).health_check_path(health);
            Pages::of(&instance.build().unwrap())
        };
        for path in ["/", "/health?deep=true"] {
            let pages = of(path);
            assert_eq!((pages.health_path(), pages.info_path()), (None, Some("/actuator/info")), "{path}");
            assert_eq!(pages.0.left, [("health", path.into())]);
            assert_eq!((pages.at("/"), pages.at("/health")), (None, None));
            assert_eq!(pages.with_health(Some("/up")).health_path(), Some("/up"));
        }
        assert_eq!(of("up").0.left, []);
    }

    #[test]
    #[should_panic(expected = "a page needs a path such as /actuator/health")]
    fn path_with_a_query_panics() {
        Pages::default().with_health(Some("/health?full=true"));
    }
}
