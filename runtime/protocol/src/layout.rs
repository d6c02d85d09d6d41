//! For tests: holds the layout tables in the docs of modules against the structs they describe.

/// Compares rows `(field, offset, size)` with the first table in the `//!` docs of `source`, and that the fields
/// follow each other without holes up to `total`.
///
/// # Panics
/// If they differ: a test fails.
pub fn check(source: &str, rows: &[(&str, usize, usize)], total: usize) {
    let documented: Vec<(String, usize, usize)> = source
        .lines()
        .skip_while(|line| !line.starts_with("//! | offset |"))
        .skip(2)
        .map_while(|line| line.strip_prefix("//! | "))
        .filter_map(|line| {
            let mut cells = line.split(" | ");
            let offset = cells.next()?.parse().ok()?;
            let size = cells.next()?.parse().ok()?;
            Some((cells.next()?.to_owned(), offset, size))
        })
        .collect();
    let actual: Vec<(String, usize, usize)> =
        rows.iter().map(|(name, offset, size)| ((*name).to_owned(), *offset, *size)).collect();
    assert_eq!(documented, actual, "the table in the docs and the struct");
    let mut next = 0;
    for (name, offset, size) in rows {
        assert_eq!(*offset, next, "{name} follows the field before it");
        next = offset + size;
    }
    assert_eq!(next, total, "the fields fill the struct");
}
