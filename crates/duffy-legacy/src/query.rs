//! The parameters of a request, all of which stand in its query.

/// What was given, in order.
pub type Query = axum::extract::Query<Vec<(String, String)>>;

/// A parameter; of several the last one counts.
pub fn find<'q>(query: &'q Query, name: &str) -> Option<&'q str> {
    let found = query.0.iter().rev().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}

/// How many nodes are wanted.
#[derive(Debug, PartialEq, Eq)]
pub enum Count {
    /// So many.
    Nodes(u32),
    /// A number that is no number of nodes; nobody has so many, or so few.
    Impossible,
}

/// Reads a number as the original does: blanks around it, a sign, underscores between digits and
/// a fraction of zeros are fine. `None` when it is no number.
pub fn parse_count(text: &str) -> Option<Count> {
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
    is_number.then(|| match whole.replace('_', "").parse() {
        Ok(1..) if whole.starts_with('-') => Count::Impossible,
        Ok(count @ 1..) => Count::Nodes(count),
        _ => Count::Impossible,
    })
}

/// The number of a session; `None` when it is none.
pub fn parse_session(text: &str) -> Option<i64> {
    text.trim().parse().ok()
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
            assert_eq!(parse_count(text), Some(Count::Nodes(nodes)), "{text:?}");
        }
        for text in ["0", "-1", "-0", "99999999999999999999999999", "4294967296"] {
            assert_eq!(parse_count(text), Some(Count::Impossible), "{text:?}");
        }
        for text in [
            "", " ", "abc", "1.5", "1.", "1e3", "0x1", "_1", "1_", "1__0", "--1", "٣",
        ] {
            assert_eq!(parse_count(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_last_of_equal_parameters_counts() {
        let query = axum::extract::Query(vec![
            ("a".to_owned(), "1".to_owned()),
            ("a".to_owned(), "2".to_owned()),
        ]);
        assert_eq!((find(&query, "a"), find(&query, "b")), (Some("2"), None));
    }
}
