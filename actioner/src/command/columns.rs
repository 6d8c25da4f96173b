//! Tables for people: columns as wide as their widest cell, no lines, no colours.

use super::plain;

/// Under these heads. A column that is empty in every row is left out. Cells may hold what others wrote.
pub fn columns(heads: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let used: Vec<usize> =
        (0..heads.len()).filter(|column| rows.iter().any(|row| !row[*column].is_empty())).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = used.iter().map(|column| width(*column)).collect();
    let mut text = String::new();
    let mut line = |cell: &dyn Fn(usize) -> String| {
        let cells = used.iter().zip(&widths).map(|(column, width)| format!("{:width$}", cell(*column)));
        let joined = cells.collect::<Vec<_>>().join("  ");
        text += joined.trim_end();
        text.push('\n');
    };
    line(&|column| heads[column].to_owned());
    rows.iter().for_each(|row| line(&|column| row[column].clone()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_reaches_for_the_terminal() {
        let rows = [["\u{1b}[2J\u{9b}1m", "a\nb\r\u{2028}", "\u{202e}evil\u{2066}\u{200f}"]]
            .map(|row| row.map(str::to_owned).to_vec());
        let text = columns(&["A", "B", "C"], &rows);
        assert_eq!(
            text,
            "A        B      C\n\u{fffd}[2J\u{fffd}1m  a\u{fffd}b\u{fffd}\u{fffd}  \u{fffd}evil\u{fffd}\u{fffd}\n"
        );
    }

    #[test]
    fn columns_line_up_and_empty_ones_are_left_out() {
        let rows = [["192.0.2.7/32", "", "9m"], ["2001:db8::/64", "", "1h 2m"]]
            .map(|row| row.map(str::to_owned).to_vec());
        let text = columns(&["NET", "RULE", "LEFT"], &rows);
        assert_eq!(text, "NET            LEFT\n192.0.2.7/32   9m\n2001:db8::/64  1h 2m\n");
    }
}
