//! Puts a shell script on one line, for `build.rs`. A node's login shell gets that line in single quotes.
//!
//! It removes comments and indentation, and replaces each end of a line by `; ` or a space. A line that it cannot join,
//! or that has what a login shell interprets between single quotes, is an error.

/// Returns the script on one line. An error begins with the number of the line.
pub fn join_lines(script: &str) -> Result<String, String> {
    let (mut joined, mut joint) = (String::new(), "");
    for (number, line) in (1..).zip(script.lines()) {
        let line = line.trim_matches(' ');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(fault) = find_fault(line) {
            return Err(format!("{number}: {fault}: {line}"));
        }
        joined += joint;
        joined += line;
        joint = if goes_on(line) { " " } else { "; " };
    }
    Ok(joined)
}

fn find_fault(line: &str) -> Option<&'static str> {
    let begins_comment = |two: &[u8]| b" ;&|()".contains(&two[0]) && two[1] == b'#';
    let faults = [
        (
            line.contains(['\'', '!', '\\']),
            "csh or fish interpret a single quote, exclamation mark or backslash",
        ),
        (
            !line.bytes().all(|byte| matches!(byte, b' '..=b'~')),
            "a control character, or a character that is not ASCII",
        ),
        (line.contains("<<"), "a here-document needs its own lines"),
        (
            line.matches('"').count() % 2 == 1,
            "a text in quotes goes on in the next line",
        ),
        (
            line.as_bytes().windows(2).any(begins_comment),
            "a comment needs a line of its own",
        ),
        (
            line.ends_with(';') || (line.ends_with('&') && !line.ends_with("&&")),
            "a line must not end in ; or &",
        ),
        (line.ends_with("()"), "{ belongs on the line of the name"),
        (line.starts_with("case "), "case is not supported"),
    ];
    faults
        .into_iter()
        .find_map(|(found, fault)| found.then_some(fault))
}

/// Whether the command continues in the next line, so that no `;` may follow.
fn goes_on(line: &str) -> bool {
    let last = line.rsplit("; ").next();
    line.ends_with(['{', '(', '|'])
        || line.ends_with("&&")
        || matches!(
            last,
            Some("if" | "then" | "elif" | "else" | "while" | "until" | "do")
        )
}

#[cfg(test)]
mod tests {
    use super::join_lines;

    #[test]
    fn commands_stay_apart() {
        let script = "# It's a comment!\n\nf() {\n    a=${#b}\n    # another\n    c\n}\n\
                      if d; then\n    e ||\n        f\nelse\n    (\n        g\n    )\nfi\n\
                      while\n    h\ndo\n    i &&\n        { j | k; }\ndone\necho do\n";
        assert_eq!(
            join_lines(script).unwrap(),
            "f() { a=${#b}; c; }; if d; then e || f; else ( g; ); fi; while h; do i && { j | k; }; done; echo do"
        );
    }

    #[test]
    fn what_cannot_be_joined_is_an_error() {
        for line in [
            "cat <<END",
            "a \\",
            "a 'b'",
            "[ ! -e a ]",
            "echo ü",
            "\ta",
            "a\rb",
            "a=\"b",
            "a # b",
            "a;# b",
            "a;",
            "a &",
            "a()",
            "case $a in",
            "a) b ;;",
        ] {
            let error = join_lines(&format!("# fine\na\n{line}\n")).unwrap_err();
            assert!(error.starts_with("3: "), "{line:?}: {error}");
        }
    }
}
