//! What a tenant may give as its SSH public keys.

/// The line after which Duffy keeps a tenant's keys in a node's `authorized_keys`.
const SEPARATOR: &str = "### DUFFY tenant credentials";

/// Why a text cannot be put into an `authorized_keys` file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshKeysError {
    /// A character that would break the line, or hide part of it.
    #[error("line {0} of the SSH key has a control character")]
    ControlCharacter(usize),
    /// A line that Duffy itself writes to find the keys again.
    #[error("line {0} of the SSH key is the one that Duffy separates tenants' keys by")]
    Separator(usize),
}

/// Checks a tenant's SSH public keys, a line each. What is no OpenSSH key passes, as in the
/// original; what could harm the file does not.
pub fn check_ssh_keys(keys: &str) -> Result<(), SshKeysError> {
    for (number, line) in (1..).zip(keys.split('\n')) {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(SshKeysError::ControlCharacter(number));
        }
        if line.trim() == SEPARATOR {
            return Err(SshKeysError::Separator(number));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
            check_ssh_keys("a\n ### DUFFY tenant credentials\r\n"),
            Err(SshKeysError::Separator(2))
        );
    }
}
