//! Digests of API keys, by which a key is checked without bcrypt.
//!
//! A digest is bound to the stored bcrypt hash: it begins with a tag of that hash, and the hash is the secret of its HMAC.
//! When another program changes the hash alone, the digest no longer fits it, and bcrypt decides.

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// How many digits of the tag are kept. The tag distinguishes hashes; it protects nothing.
const TAG: usize = 16;

/// The digest of a key whose hash is stored: `1:`, the tag of the hash, `:`, the HMAC-SHA-256 of the key.
pub(super) fn digest(hash: &str, key: &str) -> String {
    format!("{}{:x}", prefix(hash), hmac(hash, key).into_bytes())
}

fn prefix(hash: &str) -> String {
    let tag = format!("{:x}", Sha256::digest(hash));
    format!("1:{}:", tag.get(..TAG).unwrap_or_default())
}

#[expect(clippy::expect_used, reason = "an HMAC takes a secret of any length")]
fn hmac(hash: &str, key: &str) -> hmac::digest::CtOutput<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(hash.as_bytes()).expect("any length fits");
    mac.update(key.as_bytes());
    mac.finalize()
}

/// Whether a digest was made for this hash.
pub(super) fn fits(digest: &str, hash: &str) -> bool {
    let prefix = prefix(hash);
    digest.starts_with(&prefix) && digest.len() == prefix.len() + 2 * Sha256::output_size()
}

/// Whether a digest that fits its hash is the key's. Takes the same time for each key.
pub(super) fn is_of(stored: &str, hash: &str, key: &str) -> bool {
    digest(hash, key).as_bytes().ct_eq(stored.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_of_one_key_and_one_hash() {
        let stored = digest("hash", "key");
        // By Python's hashlib and hmac.
        assert_eq!(
            stored,
            "1:d04b98f48e8f8bcc:f12df3733a0d4a233bcd9ffdc6799e75a5bf9b9d952f4ac2cc4ff2a9ac9c5521"
        );
        assert!(fits(&stored, "hash"));
        assert!(is_of(&stored, "hash", "key"));
        assert!(!is_of(&stored, "hash", "another"));
        for odd in ["", "1:", "key", &stored[1..], &stored[..80]] {
            assert!(!fits(odd, "hash"), "{odd}");
        }
        assert!(!fits(&stored, "another"));
        assert!(!fits(&digest("another", "key"), "hash"));
    }
}
