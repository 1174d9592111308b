//! `settings`, `completion` and `man`, generated from the settings and the arguments.

use std::io;

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use super::failure::{Failure, Outcome};
use super::output::Output;
use super::text::clean;
use crate::Cli;
use crate::arguments::properties;

const NAME: &str = "tower-eureka";

pub(super) const SETTINGS_HELP: &str = "\
Each setting has its argument, its meaning and its default. The same name is a
setting in application.yml, and in upper case a variable:
EUREKA_SERVER_ENABLESELFPRESERVATION. Those in force: tower-eureka config

Example:
  tower-eureka settings | grep -A1 self-preservation

Exit codes: 0 printed, 2 wrong usage";

/// Prints the settings of the registry server.
pub(super) fn settings() -> Result<Outcome, Failure> {
    write(properties().as_bytes())
}

#[derive(Args, Debug)]
pub(crate) struct Completion {
    /// Shell that completes
    shell: Shell,
}

pub(super) const COMPLETION_HELP: &str = "\
Examples:
  tower-eureka completion bash > /etc/bash_completion.d/tower-eureka
  tower-eureka completion zsh > \"${fpath[1]}/_tower-eureka\"
  tower-eureka completion fish > ~/.config/fish/completions/tower-eureka.fish
  tower-eureka completion powershell >> $PROFILE

For this shell only:
  source <(tower-eureka completion bash)

Open a new shell afterwards. The completion of bash needs the package
bash-completion. Verbs and options are completed; names of applications are
not.

Exit codes: 0 printed, 2 wrong usage";

impl Completion {
    pub(super) fn run(self) -> Result<Outcome, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), NAME, &mut script);
        write(&script)
    }
}

#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Verb whose page is printed, such as `diff` [default: the page of all verbs]
    verb: Option<String>,
}

pub(super) const MAN_HELP: &str = "\
Examples:
  tower-eureka man | man -l -
  tower-eureka man diff | man -l -

To install the pages:
  tower-eureka man > /usr/share/man/man1/tower-eureka.1
  tower-eureka man diff > /usr/share/man/man1/tower-eureka-diff.1

The pages are in the format of man (roff). They have the same text as --help.
`tower-eureka settings` lists the settings of the registry server.

Exit codes: 0 printed, 2 wrong usage or no such verb";

impl Man {
    pub(super) fn run(self) -> Result<Outcome, Failure> {
        let mut command = Cli::command().name(NAME);
        command.build();
        let command = match &self.verb {
            None => command,
            Some(verb) => {
                let found = command.find_subcommand(verb).cloned();
                let found = found.ok_or_else(|| {
                    let names: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
                    Failure::usage(format_args!("there is no verb {}; the verbs are {}", clean(verb), names.join(", ")))
                })?;
                let name = format!("{NAME}-{verb}");
                found.display_name(name)
            }
        };
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        write(&page)
    }
}

fn write(bytes: &[u8]) -> Result<Outcome, Failure> {
    let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
    Output::new(false).line(text.trim_end())?;
    Ok(Outcome::Done)
}
