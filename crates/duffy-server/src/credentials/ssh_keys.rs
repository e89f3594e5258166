//! What a tenant may give as its SSH public keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The line after which Duffy keeps a tenant's keys in a node's `authorized_keys`.
const SEPARATOR: &str = "### DUFFY tenant credentials";

/// Why Duffy does not write a text into an `authorized_keys` file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshKeysError {
    /// A character that breaks the line or hides a part of it.
    #[error("line {0} of the SSH key has a control character")]
    ControlCharacter(usize),
    /// The line that Duffy itself writes to find the keys again.
    #[error("line {0} of the SSH key has the marker that Duffy writes before tenants' keys")]
    Separator(usize),
}

/// Checks a tenant's SSH public keys, a line each. A line that is not an OpenSSH key passes, as in
/// the original; a line that could harm the file does not.
pub fn check_ssh_keys(keys: &str) -> Result<(), SshKeysError> {
    for (number, line) in (1..).zip(keys.split('\n')) {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(SshKeysError::ControlCharacter(number));
        }
        // As nodes look for it: anywhere in the line.
        if line.contains(SEPARATOR) {
            return Err(SshKeysError::Separator(number));
        }
    }
    Ok(())
}

/// Returns the numbers of the lines that are not OpenSSH public keys: nobody can log in with them. Skips empty lines
/// and comments. Returns 1 when there is no key at all.
pub fn lines_without_key(keys: &str) -> Vec<usize> {
    let lines = (1..).zip(keys.lines().map(str::trim));
    let mut lines = lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .peekable();
    if lines.peek().is_none() {
        return vec![1];
    }
    lines
        .filter(|(_, line)| !is_public_key(line) && !is_public_key(after_options(line)))
        .map(|(number, _)| number)
        .collect()
}

/// Whether a text is a type and a key of this type in base64; any type is accepted.
fn is_public_key(text: &str) -> bool {
    let mut words = text.split([' ', '\t']).filter(|word| !word.is_empty());
    let (Some(kind), Some(key)) = (words.next(), words.next()) else {
        return false;
    };
    let Ok(key) = STANDARD.decode(key) else {
        return false;
    };
    let Some((length, rest)) = key.split_first_chunk::<4>() else {
        return false;
    };
    let length = u32::from_be_bytes(*length) as usize;
    rest.len() > length && &rest[..length] == kind.as_bytes()
}

/// Returns what follows the options that a line can begin with. They end at a blank outside of quotes.
fn after_options(line: &str) -> &str {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' if !escaped => quoted = !quoted,
            ' ' | '\t' if !quoted => return line[at..].trim_start(),
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    #[test]
    fn lines_without_a_key_are_found() {
        let with_options = format!("from=\"a b\\\"c\",no-pty {KEY} a@b");
        for fine in [
            KEY,
            &format!("  {KEY} me@example.org\n\n# mine\r\n{KEY}\r\n"),
            &with_options,
            "sk-ssh-x@example.org AAAAFHNrLXNzaC14QGV4YW1wbGUub3JnAAAAAQ== new kind",
        ] {
            assert_eq!(lines_without_key(fine), Vec::<usize>::new(), "{fine}");
        }
        for (text, lines) in [
            (String::new(), vec![1]),
            ("# nothing".to_owned(), vec![1]),
            ("hunter2".to_owned(), vec![1]),
            (format!("{KEY}\nssh-rsa nonsense x"), vec![2]),
            (KEY.replace("ed25519 ", "rsa "), vec![1]),
            (KEY.replace(' ', "\n"), vec![1, 2]),
            (format!("\nsome \"words {KEY}"), vec![2]),
            ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5".to_owned(), vec![1]),
        ] {
            assert_eq!(lines_without_key(&text), lines, "{text}");
        }
    }

    #[test]
    fn lines_that_harm_are_named() {
        for fine in ["", "ssh-rsa AAAA a@b", "a\nb\r\nc\n", "no\tkey", "é"] {
            assert_eq!(check_ssh_keys(fine), Ok(()), "{fine:?}");
        }
        for (bad, line) in [("\0", 1), ("a\nb\u{1b}[2J", 2), ("a\rb", 1), ("\u{85}", 1)] {
            assert_eq!(
                check_ssh_keys(bad),
                Err(SshKeysError::ControlCharacter(line)),
                "{bad:?}"
            );
        }
        assert_eq!(
            check_ssh_keys("a\nx ### DUFFY tenant credentials\r\n"),
            Err(SshKeysError::Separator(2))
        );
    }
}
