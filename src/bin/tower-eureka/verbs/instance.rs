//! Verbs that change one instance: `status`, `metadata` and `cancel`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use tower_eureka::Instance;
use tower_eureka::model::InstanceStatus::{self, Unknown};
use tower_eureka::transport::Transport;

use super::Context;
use super::failure::{Cause, Failure, Outcome};
use super::fields::{override_of, record};
use super::output::{Color, Output};
use super::target::{Target, named, status};
use super::text::{clean, clean_name};

/// Name of an instance, with the registry that has it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Named {
    /// Application, in any case
    #[arg(value_parser = named)]
    pub(crate) app: String,
    /// Instance id, as `apps` prints it
    #[arg(value_name = "ID", value_parser = named)]
    pub(crate) id: String,
}

impl Named {
    /// Fetches the instance.
    pub(crate) async fn fetch(&self, transport: &Transport) -> Result<Instance, Failure> {
        transport.instance(&self.app, &self.id).await?.ok_or_else(|| self.unknown())
    }

    /// Returns the error for an instance that the registry does not have.
    pub(crate) fn unknown(&self) -> Failure {
        let (app, id) = (clean_name(&self.app), clean_name(&self.id));
        let text = format!("the registry has no instance {id} of {app}; see the ids in: tower-eureka apps {app}");
        Failure::new(Cause::NotFound, text)
    }

    /// Returns the name for people.
    pub(crate) fn display(&self) -> String {
        format!("{} {}", clean_name(&self.app.to_uppercase()), clean_name(&self.id))
    }

    /// Returns the error of a change.
    fn failed(&self, error: tower_eureka::Error) -> Failure {
        if error.is_not_found() { self.unknown() } else { error.into() }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Status {
    #[command(subcommand)]
    action: StatusAction,
}

#[derive(Debug, Subcommand)]
enum StatusAction {
    /// Overrides the status of an instance
    #[command(after_help = SET_HELP)]
    Set(Set),
    /// Removes the override, so that the instance has its own status again
    #[command(after_help = CLEAR_HELP)]
    Clear(Clear),
}

#[derive(Args, Debug)]
struct Set {
    #[command(flatten)]
    named: Named,
    /// OUT_OF_SERVICE, UP, DOWN or STARTING, in any case
    #[arg(value_parser = status)]
    status: InstanceStatus,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Args, Debug)]
struct Clear {
    #[command(flatten)]
    named: Named,
    /// Status until the instance registers again [default: UNKNOWN]
    #[arg(long, value_name = "STATUS", value_parser = status)]
    fallback: Option<InstanceStatus>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) const STATUS_HELP: &str = "\
An override outlives heartbeats and registrations of the instance. It ends with
`clear`, with the lease, and an hour after the last heartbeat.

Examples:
  tower-eureka status set orders 10.0.0.1:orders:8080 OUT_OF_SERVICE
  tower-eureka status clear orders 10.0.0.1:orders:8080

To wait until the callers know: tower-eureka drain. Status and override of the
instances: tower-eureka apps orders

Exit codes: 0 done, 2 wrong usage, 3 no server responded, 4 no such
instance, 5 refused";

const SET_HELP: &str = "\
Servers store no override that equals the present status. An override UP hides
OUT_OF_SERVICE, but neither DOWN nor STARTING of the instance itself.

Example:
  tower-eureka status set orders 10.0.0.1:orders:8080 out-of-service

Exit codes: 0 done, 2 wrong usage, 3 no server responded, 4 no such
instance, 5 refused";

const CLEAR_HELP: &str = "\
The instance is UNKNOWN until its next heartbeat, at most 30 s by default. It
registers again then, with its own status. With --fallback UP it is UP now.

Example:
  tower-eureka status clear orders 10.0.0.1:orders:8080 --fallback UP

Exit codes: 0 done, 2 wrong usage, 3 no server responded, 4 no such
instance, 5 refused";

impl Status {
    pub(super) async fn run(self, context: &Context) -> Result<Outcome, Failure> {
        match self.action {
            StatusAction::Set(Set { named, status, json, target }) => {
                let eureka = target.client(&context.settings)?;
                let (transport, output) = (eureka.transport(), Output::new(json));
                let before = named.fetch(transport).await?;
                set_status(&named, status, transport).await?;
                let now = named.fetch(transport).await?;
                let is_kept = before.status() == status && override_of(&before) != Some(status);
                if is_kept {
                    context.note(format_args!("{} was {status} before, so servers store no override", named.display()));
                }
                report(&named, &before, &now, &output)
            }
            StatusAction::Clear(Clear { named, fallback, json, target }) => {
                let eureka = target.client(&context.settings)?;
                let (transport, output) = (eureka.transport(), Output::new(json));
                let before = named.fetch(transport).await?;
                let cleared = match fallback {
                    None => transport.remove_status(&named.app, &named.id).await,
                    Some(status) => transport.replace_status(&named.app, &named.id, status).await,
                };
                cleared.map_err(|error| named.failed(error))?;
                let now = named.fetch(transport).await?;
                if override_of(&before).is_none() {
                    context.note(format_args!("{} had no override", named.display()));
                } else if now.status() == Unknown {
                    let wait = Duration::from_secs(interval_secs(&now));
                    context.note(format_args!("it registers again with its next heartbeat, within {wait:?}"));
                }
                report(&named, &before, &now, &output)
            }
        }
    }
}

/// Overrides the status.
pub(crate) async fn set_status(named: &Named, status: InstanceStatus, transport: &Transport) -> Result<(), Failure> {
    let set = transport.set_status(&named.app, &named.id, status).await;
    set.map_err(|error| named.failed(error))
}

/// Returns the seconds between two heartbeats of an instance.
fn interval_secs(instance: &Instance) -> u64 {
    instance
        .lease()
        .and_then(|lease| lease.renewal_interval_secs.try_into().ok())
        .filter(|&secs| secs > 0)
        .unwrap_or(30)
}

/// Writes the status before and after a change.
fn report(named: &Named, before: &Instance, now: &Instance, output: &Output) -> Result<Outcome, Failure> {
    let over = override_of(now);
    let line = format!(
        "{} {} -> {}{}",
        named.display(),
        before.status(),
        output.paint(Color::of(now.status()), now.status().as_str()),
        over.map_or(String::new(), |status| format!(" (override {status})")),
    );
    let object = json!({
        "app": now.app(),
        "instance": now.id(),
        "before": { "status": before.status().as_str(), "overriddenStatus": override_of(before).map(InstanceStatus::as_str) },
        "status": now.status().as_str(),
        "overriddenStatus": over.map(InstanceStatus::as_str),
    });
    output.either(&object, &line)?;
    Ok(Outcome::Done)
}

#[derive(Args, Debug)]
pub(crate) struct Metadata {
    #[command(flatten)]
    named: Named,
    /// Entries to add or replace; without any, the present ones are printed
    #[arg(value_name = "KEY=VALUE", value_parser = entry)]
    entries: Vec<(String, String)>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) const METADATA_HELP: &str = "\
A change lasts until the instance registers again, since it sends its own
metadata then. Entries cannot be removed. An empty value is possible: canary=

Examples:
  tower-eureka metadata orders 10.0.0.1:orders:8080
  tower-eureka metadata orders 10.0.0.1:orders:8080 weight=5 zone=rack-b

Exit codes: 0 done, 2 wrong usage, 3 no server responded, 4 no such
instance, 5 refused";

fn entry(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".into()),
    }
}

impl Metadata {
    pub(super) async fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let Self { named, entries, json, target } = self;
        let eureka = target.client(&context.settings)?;
        let (transport, output) = (eureka.transport(), Output::new(json));
        if !entries.is_empty() {
            let entries: Vec<_> = entries.iter().map(|(key, value)| (&**key, &**value)).collect();
            let updated = transport.update_metadata(&named.app, &named.id, &entries).await;
            updated.map_err(|error| named.failed(error))?;
        }
        let instance = named.fetch(transport).await?;
        if json {
            output.json(&record(&instance)["metadata"])?;
        } else {
            for (key, value) in instance.metadata().iter() {
                output.line(&format!("{}={}", clean(key), clean(value)))?;
            }
        }
        Ok(Outcome::Done)
    }
}

#[derive(Args, Debug)]
pub(crate) struct Cancel {
    #[command(flatten)]
    named: Named,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) const CANCEL_HELP: &str = "\
Removes an instance from the registry and from its peers, for example one whose
process died and that self-preservation keeps. A process that still runs
registers again with its next heartbeat: use `drain` or `status set` for it.

Example:
  tower-eureka cancel orders 10.0.0.1:orders:8080

Exit codes: 0 done, 2 wrong usage, 3 no server responded, 4 no such
instance, 5 refused";

impl Cancel {
    pub(super) async fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let Self { named, json, target } = self;
        let eureka = target.client(&context.settings)?;
        if !eureka.transport().cancel(&named.app, &named.id).await? {
            return Err(named.unknown());
        }
        let object = json!({ "app": named.app.to_uppercase(), "instance": named.id, "cancelled": true });
        Output::new(json).either(&object, &format!("{} cancelled", named.display()))?;
        Ok(Outcome::Done)
    }
}
