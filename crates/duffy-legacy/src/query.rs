//! The parameters of a request. All are in its query.

/// The parameters, in their order.
pub type Query = axum::extract::Query<Vec<(String, String)>>;

/// Returns the value of a parameter: the last one if there are several.
pub fn find<'q>(query: &'q Query, name: &str) -> Option<&'q str> {
    let found = query.0.iter().rev().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}

/// Reads a number of nodes as the original does: it may have blanks around it, a sign, underscores between digits and a fraction
/// of zeros. Returns `None` for a text that is not a number, and 0 for a number that nobody has nodes for.
pub fn parse_count(text: &str) -> Option<u32> {
    let text = text.trim();
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|b| b == b'0') => whole,
        Some(_) => return None,
        None => text,
    };
    let digits = whole.strip_prefix(['+', '-']).unwrap_or(whole);
    let is_number = digits
        .split('_')
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    is_number.then(|| whole.replace('_', "").parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_as_the_original_reads_them() {
        for (text, nodes) in [
            ("1", 1),
            (" 2 ", 2),
            ("+3", 3),
            ("1_0", 10),
            ("4.00", 4),
            ("007", 7),
        ] {
            assert_eq!(parse_count(text), Some(nodes), "{text:?}");
        }
        for text in ["0", "-1", "-0", "99999999999999999999999999", "4294967296"] {
            assert_eq!(parse_count(text), Some(0), "{text:?}");
        }
        for text in [
            "", " ", "abc", "1.5", "1.", "1e3", "0x1", "_1", "1_", "1__0", "--1", "٣",
        ] {
            assert_eq!(parse_count(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_last_of_several_values_is_used() {
        let query = axum::extract::Query(vec![
            ("a".to_owned(), "1".to_owned()),
            ("a".to_owned(), "2".to_owned()),
        ]);
        assert_eq!((find(&query, "a"), find(&query, "b")), (Some("2"), None));
    }
}
