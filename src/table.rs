//! Text tables for people.

use std::fmt;

/// Table with aligned columns and a head. Displays without a line break at the end.
pub(crate) struct Table<const COLUMNS: usize> {
    head: [&'static str; COLUMNS],
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(crate) fn new(head: [&'static str; COLUMNS], rows: impl IntoIterator<Item = [String; COLUMNS]>) -> Self {
        Self { head, rows: rows.into_iter().collect() }
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let texts = self.rows.iter().map(|row| row[column].chars().count());
            texts.chain([self.head[column].len()]).max().unwrap_or_default()
        };
        let widths: [usize; COLUMNS] = std::array::from_fn(width);
        let line = |f: &mut fmt::Formatter<'_>, row: [&str; COLUMNS]| {
            // The last column has no padding, so that no line ends in blanks.
            let (last, others) = row.split_last().unwrap_or((&"", &[]));
            for (text, width) in others.iter().zip(widths) {
                write!(f, "{text:width$}  ")?;
            }
            f.write_str(last)
        };
        line(f, self.head)?;
        for row in &self.rows {
            writeln!(f)?;
            line(f, std::array::from_fn(|column| &*row[column]))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_text() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned);
        let table = Table::new(["a", "state"], [row(["wide ü", "1"]), row(["x", "22"])]);
        assert_eq!(table.to_string(), "a       state\nwide ü  1\nx       22");
        assert_eq!(Table::new(["a", "b"], []).to_string(), "a  b");
    }
}
