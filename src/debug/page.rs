//! The view as a page, for people. It has no script and loads nothing.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::html::{Short, Text};
use super::{Balancer, View, state_name};
use crate::balance::{EndpointSnapshot, EndpointState};
use crate::cache::{RegistrySource, RegistryStatus, server_state};
use crate::config::masked_metadata;
use crate::model::{Application, Instance, InstanceStatus, StatusCounts, shown_address};
use crate::transport::RegistryServer;

/// Number of instances up to which all applications are unfolded.
const UNFOLDED: usize = 60;
const STYLE: &str = include_str!("page.css");

/// Renders the view.
pub(super) fn page(view: &View<'_>) -> String {
    Page(view).to_string()
}

struct Page<'a>(&'a View<'a>);

impl Display for Page<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let view = self.0;
        write!(
            f,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>Registry: {state}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
            state = view.status.state()
        )?;
        head(f, view)?;
        f.write_str("<main>\n")?;
        match view.selected {
            Some(name) if view.is_unknown() => {
                writeln!(f, "<p class=\"error\">The registry has no application <b>{}</b>.</p>", Short(name))?;
            }
            Some(_) => {}
            None => {
                status(f, &view.status)?;
                servers(f, view.status.servers())?;
            }
        }
        balancers(f, &view.balancers)?;
        applications(f, view)?;
        f.write_str("</main>\n</body>\n</html>\n")
    }
}

fn head(f: &mut Formatter<'_>, view: &View<'_>) -> fmt::Result {
    let state = view.status.state().as_str();
    write!(f, "<header>\n<h1>Registry</h1>\n{}\n<nav>", Badge(state))?;
    match view.selected {
        None => f.write_str("<a href=\"?format=json\">JSON</a>")?,
        Some(name) => write!(
            f,
            "<a href=\"?format=html\">all applications</a> <a href=\"?application={}&amp;format=json\">JSON</a>",
            utf8_percent_encode(name, NON_ALPHANUMERIC)
        )?,
    }
    f.write_str("</nav>\n</header>\n")
}

fn status(f: &mut Formatter<'_>, status: &RegistryStatus) -> fmt::Result {
    if let Some(error) = status.error() {
        write!(f, "<p class=\"error\">{}", Text(error))?;
        if let Some(failing_for) = status.failing_for() {
            write!(f, " <small>failing for {} s</small>", failing_for.as_secs())?;
        }
        f.write_str("</p>\n")?;
    }
    let counts = status.refreshes();
    f.write_str("<dl class=\"cards\">\n")?;
    let seconds = |time: Option<std::time::Duration>| match time {
        Some(time) => format!("{:.1} s", time.as_secs_f64()),
        None => "never fetched".into(),
    };
    card(f, "age", seconds(status.age()))?;
    let source = match status.source() {
        RegistrySource::None => "nothing yet",
        RegistrySource::Static => "static instances",
        RegistrySource::File => "registry file",
        RegistrySource::Fetched => "registry",
    };
    card(f, "source", source)?;
    card(f, "applications", status.applications())?;
    card(f, "instances", Counts(status.counts()))?;
    if status.held() > 0 {
        card(f, "held", format_args!("{} missing in an implausible way", status.held()))?;
    }
    card(f, "refreshes", format_args!("{} <small>{} failed</small>", counts.succeeded, counts.failed))?;
    let fetched = format_args!("{} <small>full</small> {} <small>deltas</small>", counts.full, counts.deltas);
    card(f, "fetched", fetched)?;
    let mismatches = format_args!("{} <small>{} mismatched</small>", status.deltas().as_str(), counts.mismatches);
    card(f, "deltas", mismatches)?;
    card(f, "received", Bytes(counts.received_bytes))?;
    if let Some(lag) = status.propagation_lag() {
        card(f, "latest change", format_args!("{:.1} s <small>to arrive</small>", lag.as_secs_f64()))?;
    }
    f.write_str("</dl>\n")
}

/// Writes one value with its name. The value is HTML.
fn card(f: &mut Formatter<'_>, name: &str, value: impl Display) -> fmt::Result {
    writeln!(f, "<div><dt>{name}</dt><dd>{value}</dd></div>")
}

fn servers(f: &mut Formatter<'_>, servers: &[RegistryServer]) -> fmt::Result {
    if servers.is_empty() {
        return Ok(());
    }
    f.write_str("<h2>Registry servers</h2>\n<table>\n")?;
    table_head(f, &["server", "zone", "state"])?;
    for server in servers {
        let (url, zone) = (Text(server.url()), Short(server.zone().unwrap_or("-")));
        let state = server_state(server);
        writeln!(f, "<tr><td><code>{url}</code></td><td>{zone}</td><td>{}</td></tr>", Badge(&state))?;
    }
    f.write_str("</table>\n")
}

fn balancers(f: &mut Formatter<'_>, balancers: &[Balancer]) -> fmt::Result {
    if balancers.is_empty() {
        return Ok(());
    }
    f.write_str("<h2>Balancers</h2>\n")?;
    for Balancer { client, snapshot } in balancers {
        let (all, available) = (snapshot.endpoints().len(), snapshot.count(EndpointState::Available));
        let name = snapshot.name().unwrap_or("endpoints");
        write!(f, "<details open><summary><b>{}</b> {available} of {all} available", Short(name))?;
        for zone in snapshot.zones() {
            let (name, share) = (zone.name().unwrap_or("-"), (zone.share() * 100.0).round());
            write!(f, " <small>zone {} {share} %</small>", Short(name))?;
        }
        if snapshot.is_panic() {
            f.write_str(" <small class=\"error\">too few are available, ejections are ignored</small>")?;
        }
        writeln!(f, " <small class=\"end\">{}</small></summary>\n<table>", Short(&**client))?;
        table_head(f, &["endpoint", "zone", "state", "weight", "latency", "pending", "failures"])?;
        snapshot.endpoints().iter().try_for_each(|row| endpoint(f, row))?;
        f.write_str("</table></details>\n")?;
    }
    Ok(())
}

fn endpoint(f: &mut Formatter<'_>, endpoint: &EndpointSnapshot) -> fmt::Result {
    let (id, zone) = (Short(endpoint.id()), Short(endpoint.zone().unwrap_or("-")));
    write!(f, "<tr><td><code>{id}</code></td><td>{zone}</td><td>{}", Badge(state_name(endpoint.state())))?;
    if let Some(cause) = endpoint.cause() {
        write!(f, " <small>{}</small>", Text(cause))?;
    }
    if let Some(retry_in) = endpoint.retry_in() {
        write!(f, " <small>for {:.1} s</small>", retry_in.as_secs_f64())?;
    }
    let milliseconds = endpoint.latency().as_secs_f64() * 1_000.0;
    writeln!(
        f,
        "</td><td>{}</td><td>{milliseconds:.1} ms</td><td>{}</td><td>{}/64</td></tr>",
        (endpoint.effective_weight() * 100.0).round() / 100.0,
        endpoint.pending(),
        endpoint.failures()
    )
}

fn applications(f: &mut Formatter<'_>, view: &View<'_>) -> fmt::Result {
    if view.applications.is_empty() {
        return Ok(());
    }
    f.write_str("<h2>Applications</h2>\n")?;
    let is_open = view.selected.is_some() || view.instances <= UNFOLDED;
    for (application, shown) in view.shown() {
        self::application(f, application, shown, is_open, view.selected.is_some())?;
    }
    let omitted = view.omitted();
    if omitted > 0 {
        writeln!(f, "<p>{omitted} further instances are not shown. Select an application to see them.</p>")?;
    }
    Ok(())
}

fn application(
    f: &mut Formatter<'_>,
    application: &Application,
    shown: &[Arc<Instance>],
    is_open: bool,
    is_selected: bool,
) -> fmt::Result {
    let counts: StatusCounts = application.instances.iter().map(|instance| instance.status()).collect();
    let open = if is_open { " open" } else { "" };
    write!(f, "<details{open}><summary><b>{}</b> {}", Short(&*application.name), Counts(counts))?;
    if !is_selected {
        let link = utf8_percent_encode(&application.name, NON_ALPHANUMERIC);
        write!(f, " <a class=\"end\" href=\"?application={link}&amp;format=html\">details</a>")?;
    }
    f.write_str("</summary>\n")?;
    if !shown.is_empty() {
        f.write_str("<table>\n")?;
        table_head(f, &["instance", "status", "address", "zone", "metadata"])?;
        shown.iter().try_for_each(|row| instance(f, row, is_selected))?;
        f.write_str("</table>\n")?;
    }
    f.write_str("</details>\n")
}

fn instance(f: &mut Formatter<'_>, instance: &Instance, is_selected: bool) -> fmt::Result {
    let (id, zone) = (Short(instance.id()), Short(instance.zone().unwrap_or("-")));
    write!(f, "<tr><td><code>{id}</code></td><td>{}", Badge(instance.status().as_str()))?;
    if instance.overridden_status() != InstanceStatus::Unknown {
        write!(f, " <small>overridden</small>")?;
    }
    write!(f, "</td><td><code>{}</code></td><td>{zone}</td><td>", Text(shown_address(instance)))?;
    let metadata = instance.metadata();
    if !metadata.is_empty() {
        let open = if is_selected { " open" } else { "" };
        write!(f, "<details{open}><summary>{}</summary><ul>", metadata.len())?;
        for (key, value) in metadata.iter() {
            write!(f, "<li><code>{}: {}</code></li>", Short(key), Short(masked_metadata(key, value)))?;
        }
        f.write_str("</ul></details>")?;
    }
    f.write_str("</td></tr>\n")
}

fn table_head(f: &mut Formatter<'_>, columns: &[&str]) -> fmt::Result {
    f.write_str("<tr>")?;
    columns.iter().try_for_each(|column| write!(f, "<th>{column}</th>"))?;
    f.write_str("</tr>\n")
}

/// A state, coloured by its kind.
struct Badge<'a>(&'a str);

impl Display for Badge<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let class = match self.0 {
            "UP" | "fresh" | "available" | "in use" => "good",
            "DOWN" | "stale" | "ejected" | "failed" => "bad",
            _ => "plain",
        };
        write!(f, "<span class=\"badge {class}\">{}</span>", Text(self.0))
    }
}

/// Numbers of instances by status: `DOWN 1, UP 3`.
struct Counts(StatusCounts);

impl Display for Counts {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.total() == 0 {
            return f.write_str("0");
        }
        let present = InstanceStatus::ALL.into_iter().filter(|status| self.0.of(*status) > 0);
        for (at, status) in present.enumerate() {
            write!(f, "{}{} <small>{status}</small>", if at == 0 { "" } else { " " }, self.0.of(status))?;
        }
        Ok(())
    }
}

/// Number of bytes with a unit: `1.2 MB`.
struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ ..1_000 => write!(f, "{bytes} B"),
            bytes @ ..1_000_000 => write!(f, "{:.1} kB", bytes as f64 / 1e3),
            bytes => write!(f, "{:.1} MB", bytes as f64 / 1e6),
        }
    }
}
