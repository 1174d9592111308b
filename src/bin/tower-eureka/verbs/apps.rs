//! `apps`: the instances of a registry.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tower_eureka::Instance;
use tower_eureka::model::{InstanceStatus, StatusCounts};

use super::Context;
use super::failure::{Cause, Failure, Outcome};
use super::fields::{address, fields, override_of, record};
use super::output::{Color, Output, Table};
use super::target::{Target, named, status};
use super::text::{clean, clean_name, count, duration, now_ms};

#[derive(Args, Debug)]
pub(crate) struct Apps {
    /// Application to list, in any case [default: all]
    #[arg(value_parser = named)]
    name: Option<String>,

    /// List only instances with this status
    #[arg(long, value_name = "STATUS", value_parser = any_status)]
    status: Option<InstanceStatus>,

    /// Print all fields of each instance
    #[arg(long, short, conflicts_with = "json")]
    long: bool,

    /// Print a JSON array of instances
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: Target,
}

pub(super) const HELP: &str = "\
Examples:
  tower-eureka apps
  tower-eureka apps orders --url http://registry:8761/eureka/
  tower-eureka apps --status DOWN --json | jq -r '.[].instance'

Exit codes: 0 listed, 2 wrong usage, 3 no server responded, 4 no such
application, 5 refused";

impl Apps {
    pub(super) async fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let output = Output::new(self.json);
        let eureka = self.target.client(&context.settings)?;
        let transport = eureka.transport();
        let applications = match &self.name {
            None => transport.applications().await?.applications,
            Some(name) if name.contains("://") => {
                return Err(Failure::usage("the name of the application is a URL; put --url before it"));
            }
            Some(name) => match transport.application(name).await? {
                Some(application) => vec![Arc::new(application)],
                None => {
                    let text = format!(
                        "the registry has no instance of {}; see the names in: tower-eureka apps",
                        clean_name(name)
                    );
                    return Err(Failure::new(Cause::NotFound, text));
                }
            },
        };
        let mut instances: Vec<Arc<Instance>> = applications.iter().flat_map(|app| app.instances.clone()).collect();
        instances.retain(|instance| self.status.is_none_or(|status| instance.status() == status));
        instances.sort_by(|a, b| (a.app(), a.id()).cmp(&(b.app(), b.id())));
        if self.json {
            output.json(&Value::Array(instances.iter().map(|instance| record(instance)).collect()))?;
        } else if self.long {
            instances.iter().try_for_each(|instance| long(instance, &output))?;
        } else {
            table(&instances, &output)?;
        }
        Ok(Outcome::Done)
    }
}

/// Parses any status, since a registry may list instances of each.
fn any_status(text: &str) -> Result<InstanceStatus, String> {
    if text.eq_ignore_ascii_case("unknown") { Ok(InstanceStatus::Unknown) } else { status(text) }
}

fn table(instances: &[Arc<Instance>], output: &Output) -> Result<(), Failure> {
    let now = now_ms();
    let mut table = Table::new(["APPLICATION", "INSTANCE", "STATUS", "ADDRESS", "ZONE", "VERSION", "UP FOR"]);
    let or_dash = |text: Option<&str>| (text.map_or_else(|| "-".to_owned(), clean), Color::None);
    for instance in instances {
        let status = instance.status();
        let shown = match override_of(instance) {
            Some(over) if over == status => format!("{status} (override)"),
            Some(over) => format!("{status} (override {over})"),
            None => status.to_string(),
        };
        let up_for = instance
            .up_since_ms()
            .filter(|_| status == InstanceStatus::Up)
            .map(|since| duration(Duration::from_millis(now.saturating_sub(since).try_into().unwrap_or(0))));
        table.row([
            (clean_name(instance.app()), Color::None),
            (clean_name(instance.id()), Color::None),
            (shown, Color::of(status)),
            (clean(&address(instance)), Color::None),
            or_dash(instance.zone()),
            or_dash(instance.metadata().get("version")),
            or_dash(up_for.as_deref()),
        ]);
    }
    table.write(output)?;
    output.line(&output.paint(Color::Faint, &summary(instances)))?;
    Ok(())
}

/// Returns the numbers of instances and applications, and of the statuses.
fn summary(instances: &[Arc<Instance>]) -> String {
    let mut applications: Vec<&str> = instances.iter().map(|instance| instance.app()).collect();
    applications.dedup();
    let counts: StatusCounts = instances.iter().map(|instance| instance.status()).collect();
    let statuses = InstanceStatus::ALL.into_iter().rev().filter(|&status| counts.of(status) > 0);
    let statuses: Vec<_> = statuses.map(|status| format!("{} {status}", counts.of(status))).collect();
    let all = format!("{} of {}", count(instances.len(), "instance"), count(applications.len(), "application"));
    if statuses.is_empty() { all } else { format!("{all}: {}", statuses.join(", ")) }
}

fn long(instance: &Instance, output: &Output) -> Result<(), Failure> {
    output.line(
        &output.paint(Color::Heading, &format!("{} {}", clean_name(instance.app()), clean_name(instance.id()))),
    )?;
    for (name, value) in fields(instance) {
        let color = if name == "status" { Color::of(instance.status()) } else { Color::None };
        output.line(&format!("  {:<22} {}", clean(&name), output.paint(color, &clean(&value))))?;
    }
    Ok(())
}
