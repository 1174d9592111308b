//! Standard output of the verbs: tables with colors for people, JSON for programs.

use std::io::{self, Write};

use anstream::ColorChoice;
use anstyle::{AnsiColor, Style};
use serde_json::Value;
use tower_eureka::model::InstanceStatus;

use super::text::json_line;

/// Color of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Color {
    #[default]
    None,
    Good,
    Warning,
    Bad,
    Faint,
    Heading,
}

impl Color {
    pub(crate) fn of(status: InstanceStatus) -> Self {
        match status {
            InstanceStatus::Up => Self::Good,
            InstanceStatus::Down => Self::Bad,
            _ => Self::Warning,
        }
    }

    fn style(self) -> Style {
        let color = |color: AnsiColor| Style::new().fg_color(Some(color.into()));
        match self {
            Self::None => Style::new(),
            Self::Good => color(AnsiColor::Green),
            Self::Warning => color(AnsiColor::Yellow),
            Self::Bad => color(AnsiColor::Red),
            Self::Faint => Style::new().dimmed(),
            Self::Heading => Style::new().bold(),
        }
    }
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    colors: bool,
}

impl Output {
    /// Colors are used on a terminal, unless the environment says otherwise (`NO_COLOR`,
    /// `CLICOLOR`, `TERM=dumb`).
    pub(crate) fn new(json: bool) -> Self {
        let colors = anstream::AutoStream::choice(&io::stdout()) != ColorChoice::Never;
        Self { json, colors }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Returns the text in its color.
    pub(crate) fn paint(&self, color: Color, text: &str) -> String {
        match color {
            Color::None => text.to_owned(),
            _ if !self.colors => text.to_owned(),
            color => format!("{0}{text}{0:#}", color.style()),
        }
    }

    /// Writes a line.
    pub(crate) fn line(&self, line: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{line}").and_then(|()| stdout.flush())
    }

    /// Writes a document in one line.
    pub(crate) fn json(&self, value: &Value) -> io::Result<()> {
        self.line(&json_line(value))
    }

    /// Writes the document for programs, or the line for people.
    pub(crate) fn either(&self, json: &Value, line: &str) -> io::Result<()> {
        if self.json { self.json(json) } else { self.line(line) }
    }
}

/// Table with columns as wide as their widest cell. The texts of its cells are clean.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<(String, Color)>>,
}

impl Table {
    pub(crate) fn new(headings: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { rows: vec![headings.into_iter().map(|heading| (heading.into(), Color::Heading)).collect()] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = (String, Color)>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn write(&self, output: &Output) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(move |row| row.get(column)).map(|(cell, _)| columns_of(cell));
        let widths: Vec<usize> = (0..columns).map(|column| width(column).max().unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (number, (cell, color)) in row.iter().enumerate() {
                line.push_str(&output.paint(*color, cell));
                if number + 1 < row.len() {
                    line.extend(std::iter::repeat_n(' ', widths[number] - columns_of(cell) + 2));
                }
            }
            output.line(line.trim_end())?;
        }
        Ok(())
    }
}

/// Returns the number of columns of a clean text. Characters of Chinese, Japanese and Korean, and
/// emoji, take two.
fn columns_of(text: &str) -> usize {
    let is_wide = |c: &char| {
        matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}' | '\u{20000}'..='\u{3fffd}')
    };
    text.chars().count() + text.chars().filter(is_wide).count()
}
