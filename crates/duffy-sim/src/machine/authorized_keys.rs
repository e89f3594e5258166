//! The machine's `authorized_keys`, read at each authentication.

use std::io;
use std::path::Path;

use russh::keys::PublicKey;
use tokio::io::AsyncReadExt;

/// Limit of what is read of the file, in bytes.
const SIZE_LIMIT: u64 = 1 << 20;

/// Whether the machine with this home directory accepts the key. Any error of the file means no.
pub(super) async fn is_authorized(home: &Path, key: &PublicKey) -> bool {
    let content = read(&home.join(".ssh/authorized_keys")).await;
    String::from_utf8_lossy(&content.unwrap_or_default())
        .lines()
        .filter_map(parse_line)
        .any(|allowed| allowed.key_data() == key.key_data())
}

async fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    // The machine's root may have replaced the file by something that blocks when it is opened.
    if tokio::fs::metadata(path).await?.is_file() {
        let file = tokio::fs::File::open(path).await?;
        file.take(SIZE_LIMIT).read_to_end(&mut content).await?;
    }
    Ok(content)
}

/// Returns the key of one line, with or without options before it; none for comments and invalid lines.
fn parse_line(line: &str) -> Option<PublicKey> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    PublicKey::from_openssh(line)
        .or_else(|error| {
            let rest = skip_options(line).ok_or(error)?;
            PublicKey::from_openssh(rest)
        })
        .ok()
}

/// Returns what follows the options, which end at the first blank outside of quotes.
fn skip_options(line: &str) -> Option<&str> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ' ' | '\t' if !quoted => return Some(line[at..].trim_start()),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    #[test]
    fn keys_with_and_without_options_are_found() {
        for line in [
            KEY.to_owned(),
            format!("  {KEY} a comment with blanks "),
            format!("no-pty {KEY}"),
            format!("command=\"echo \\\"a b\\\"\",no-pty\t{KEY} x"),
        ] {
            assert!(parse_line(&line).is_some(), "{line}");
        }
    }

    #[test]
    fn other_lines_are_passed_over() {
        for line in [
            "",
            "# comment",
            "### DUFFY tenant credentials",
            "ssh-ed25519",
            "ssh-ed25519 !!!",
            "command=\"unclosed ssh-ed25519 AAAA",
        ] {
            assert!(parse_line(line).is_none(), "{line}");
        }
        assert!(parse_line(&format!("#{KEY}")).is_none());
    }
}
