//! `watch`: the changes of a registry as they happen.
//!
//! A copy of the registry is kept by deltas. Each one is compared with the copy, so that a change
//! that stays in the delta for three minutes is reported once.

mod copy;

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tower_eureka::Instance;

use self::copy::{Copy, Event};
use super::Context;
use super::failure::{Cause, Failure, Outcome};
use super::fields::{Change, STATUS, VERSION, address};
use super::output::{Color, Output};
use super::target::{Target, seconds};
use super::text::{clean, clean_name, count, duration, now_ms, time_of_day};

#[derive(Args, Debug)]
pub(crate) struct Watch {
    /// Application to watch, in any case [default: all]
    name: Option<String>,

    /// Time between two fetches
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    interval: Duration,

    /// End after this time [default: at Ctrl-C]
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    limit: Option<Duration>,

    /// Print the instances that are there at the start, too
    #[arg(long)]
    initial: bool,

    /// Print each event as a JSON object in a line of its own
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    target: Target,
}

pub(super) const HELP: &str = "\
Signs: + a new instance, - one that left, ~ a change, ! no server responds (the
copy is kept meanwhile), = connected. Java servers cache their lists for 30 s,
so changes are late by as much.

Examples:
  tower-eureka watch
  tower-eureka watch orders --interval 1
  tower-eureka watch --json --for 600 | jq 'select(.event == \"removed\")'

Exit codes: 0 ended by Ctrl-C, --for or the reader, 2 wrong usage, 5 refused at
the start (401)";

impl Watch {
    pub(super) async fn run(self, context: &Context) -> Result<Outcome, Failure> {
        let eureka = self.target.client(&context.settings)?;
        let output = Output::new(self.json);
        let end = self.limit.map(|limit| Instant::now() + limit);
        let mut copy = Copy::new(eureka, self.name.clone());
        let mut fetches = interval(self.interval);
        fetches.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Time since which no server responds.
        let mut failing: Option<Instant> = None;
        let interrupt = tokio::signal::ctrl_c();
        tokio::pin!(interrupt);
        loop {
            let next = async {
                fetches.tick().await;
                copy.fetch().await
            };
            let fetched = tokio::select! {
                fetched = next => fetched,
                _ = &mut interrupt => return Ok(Outcome::Done),
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => return Ok(Outcome::Done),
            };
            let (is_first, events) = match fetched {
                Ok(fetched) => fetched,
                Err(error) => {
                    if !copy.is_loaded() && (error.is_config() || error.status() == Some(401)) {
                        return Err(error.into());
                    }
                    if failing.is_none() {
                        failing = Some(Instant::now());
                        write_lost(&Failure::from(error), &output)?;
                    }
                    continue;
                }
            };
            let away = failing.take().map(|since| since.elapsed());
            if is_first || away.is_some() {
                write_connected(&copy, is_first, away, &output)?;
            }
            for event in events.iter().filter(|_| !is_first || self.initial) {
                write_event(event, &output)?;
            }
        }
    }
}

fn write_lost(failure: &Failure, output: &Output) -> Result<(), Failure> {
    let now = now_ms();
    let object = json!({ "atMs": now, "event": "disconnected", "error": failure.to_string() });
    let line = output.paint(Color::Bad, &format!("! {failure}; trying again"));
    output.either(&object, &format!("{} {line}", time_of_day(now)))?;
    if failure.cause == Cause::Usage { Err(Failure::usage(failure)) } else { Ok(()) }
}

fn write_connected(copy: &Copy, is_first: bool, away: Option<Duration>, output: &Output) -> Result<(), Failure> {
    let now = now_ms();
    let (instances, applications) = copy.counts();
    let object = json!({
        "atMs": now,
        "event": if is_first { "connected" } else { "reconnected" },
        "server": copy.server(),
        "instances": instances,
        "applications": applications,
        "awaySeconds": away.map(|away| away.as_secs_f64()),
    });
    let again = match away {
        Some(away) if !is_first => format!("reconnected after {}", duration(away)),
        _ => "connected".to_owned(),
    };
    let server = copy.server().map_or_else(String::new, |server| format!(" to {}", clean(&server)));
    let line = format!("{again}{server}: {} of {}", count(instances, "instance"), count(applications, "application"));
    output.either(&object, &format!("{} {}", time_of_day(now), output.paint(Color::Faint, &format!("= {line}"))))?;
    Ok(())
}

fn write_event(event: &Event, output: &Output) -> Result<(), Failure> {
    let now = now_ms();
    let (name, sign, instance, changes) = match event {
        Event::Added(instance) => ("added", "+", instance, &[][..]),
        Event::Removed(instance) => ("removed", "-", instance, &[][..]),
        Event::Changed(instance, changes) => ("changed", "~", instance, &changes[..]),
    };
    if output.is_json() {
        let changes: Vec<Value> = changes
            .iter()
            .map(|change| json!({ "field": change.field, "before": change.before, "now": change.now }))
            .collect();
        output.json(&json!({
            "atMs": now,
            "event": name,
            "app": instance.app(),
            "instance": instance.id(),
            "status": instance.status().as_str(),
            "changes": changes,
        }))?;
        return Ok(());
    }
    let detail = match event {
        Event::Added(instance) => format!("{} {}", painted(instance, output), clean(&address(instance))),
        Event::Removed(_) => format!("(was {})", instance.status()),
        Event::Changed(_, changes) => described(changes, output),
    };
    let color = match event {
        Event::Added(_) => Color::Good,
        Event::Removed(_) => Color::Bad,
        Event::Changed(..) => Color::Warning,
    };
    let (sign, app, id) = (output.paint(color, sign), clean_name(instance.app()), clean_name(instance.id()));
    output.line(&format!("{} {sign} {app} {id} {detail}", time_of_day(now)))?;
    Ok(())
}

fn painted(instance: &Instance, output: &Output) -> String {
    output.paint(Color::of(instance.status()), instance.status().as_str())
}

/// Describes the changes of an instance, the status first.
fn described(changes: &[Change], output: &Output) -> String {
    let value = |value: &Option<String>| value.as_deref().map_or_else(|| "none".to_owned(), clean);
    let mut parts: Vec<String> = Vec::new();
    for change in changes {
        let (before, now) = (value(&change.before), value(&change.now));
        match &*change.field {
            STATUS => {
                let color = now.parse().map_or(Color::None, Color::of);
                parts.push(format!("{before} -> {}", output.paint(color, &now)));
            }
            VERSION => parts.push("registered again".to_owned()),
            field => parts.push(format!("{} {before} -> {now}", clean(field))),
        }
    }
    parts.join(", ")
}
