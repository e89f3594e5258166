//! Keys are checked correctly, by bcrypt at most once, and within limits.

use super::limiter::quota;
use super::*;

const KEY: &str = "a8b9899d-b128-59a1-aa86-754920b7f5ed";

fn attempt<'a>(name: &'a str, key: &'a str, stored: Option<&'a StoredKey>) -> Attempt<'a> {
    Attempt {
        name,
        key,
        stored,
        peer: Some([192, 0, 2, 1].into()),
    }
}

/// As the original stores a key.
async fn hash_alone(credentials: &Credentials, key: &str) -> StoredKey {
    credentials.hash(key).await.unwrap().hash.as_str().into()
}

fn runs(credentials: &Credentials) -> usize {
    credentials.inner.gate.runs.load(Ordering::Relaxed)
}

/// Allows this many checks and failures of one tenant, and no more in the time of a test.
fn limited(checks: u32) -> Credentials {
    let each_hour = |burst| quota(burst, Duration::from_hours(1));
    let limiter = || Limiter::new(each_hour(2 * checks), each_hour(checks));
    let mut credentials = Credentials::with_cost(4);
    let inner = Arc::get_mut(&mut credentials.inner).unwrap();
    (inner.checks, inner.failures) = (limiter(), limiter());
    credentials
}

async fn verdict(credentials: &Credentials, attempt: Attempt<'_>) -> Verdict {
    credentials.verify(attempt).await.unwrap()
}

fn is_limited(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::TooManyFailures { retry_after }
        if *retry_after > Duration::from_mins(30))
}

#[tokio::test]
async fn hashes_have_the_form_that_the_original_reads() {
    let credentials = Credentials::with_cost(4);
    let stored = credentials.hash(KEY).await.unwrap();
    assert!(stored.hash.starts_with("$2b$04$"), "{}", stored.hash);
    assert!(matches!(
        credentials.hash(&"x".repeat(73)).await,
        Err(CredentialsError::UnfitKey)
    ));
}

#[tokio::test]
async fn a_key_with_a_digest_never_costs_bcrypt() {
    let stored = Credentials::with_cost(4).hash(KEY).await.unwrap();
    // After a restart.
    let credentials = Credentials::with_cost(4);
    let good = attempt("tenant", KEY, Some(&stored));
    assert_eq!(verdict(&credentials, good).await, Verdict::Verified);
    for wrong in ["wrong", "", &KEY[1..], &KEY.repeat(3), "a\0b"] {
        let wrong = attempt("tenant", wrong, Some(&stored));
        assert_eq!(verdict(&credentials, wrong).await, Verdict::Refused);
    }
    let nobody = attempt("nobody", KEY, None);
    assert_eq!(verdict(&credentials, nobody).await, Verdict::Refused);
    assert_eq!(runs(&credentials), 0);
}

#[tokio::test]
async fn a_hash_of_the_original_costs_bcrypt_until_its_key_is_verified() {
    // Made of the key above by Python's bcrypt.
    let hash = "$2b$06$YthXLtAkit974vvP9KTjAuCtINQ.CZfKoixv4So3KUgXwge/TPHDG";
    let credentials = Credentials::with_cost(4);
    let mut stored = StoredKey::from(hash);
    let wrong = attempt("tenant", "wrong", Some(&stored));
    assert_eq!(verdict(&credentials, wrong).await, Verdict::Refused);
    let good = attempt("tenant", KEY, Some(&stored));
    let Verdict::VerifiedByHash { digest } = verdict(&credentials, good).await else {
        panic!("not verified");
    };
    assert_eq!(runs(&credentials), 2);
    stored.digest = Some(digest);
    let good = attempt("tenant", KEY, Some(&stored));
    assert_eq!(verdict(&credentials, good).await, Verdict::Verified);
    let wrong = attempt("tenant", "wrong", Some(&stored));
    assert_eq!(verdict(&credentials, wrong).await, Verdict::Refused);
    assert_eq!(runs(&credentials), 2);
}

#[tokio::test]
async fn a_key_that_another_program_changed_counts_at_once() {
    let credentials = Credentials::with_cost(4);
    let old = credentials.hash(KEY).await.unwrap();
    let new = StoredKey {
        digest: old.digest.clone(),
        ..hash_alone(&credentials, "another").await
    };
    let outdated = attempt("tenant", KEY, Some(&new));
    assert_eq!(verdict(&credentials, outdated).await, Verdict::Refused);
    let good = attempt("tenant", "another", Some(&new));
    let Verdict::VerifiedByHash { digest } = verdict(&credentials, good).await else {
        panic!("not verified");
    };
    assert_ne!(Some(digest), old.digest);
}

#[tokio::test]
async fn unfit_keys_and_odd_hashes_are_refused() {
    let credentials = Credentials::with_cost(4);
    let stored = hash_alone(&credentials, &KEY.repeat(2)).await;
    let before = runs(&credentials);
    for key in [KEY.repeat(3), format!("{KEY}\0")] {
        let unfit = attempt("tenant", &key, Some(&stored));
        assert_eq!(verdict(&credentials, unfit).await, Verdict::Refused);
    }
    assert_eq!(runs(&credentials), before);
    let odd = StoredKey {
        hash: "no hash".to_owned(),
        digest: Some("1:no digest".to_owned()),
    };
    let odd = attempt("tenant", KEY, Some(&odd));
    assert_eq!(verdict(&credentials, odd).await, Verdict::Refused);
}

#[tokio::test]
async fn a_flood_of_wrong_keys_keeps_no_right_key_out() {
    let credentials = limited(5);
    let stored = credentials.hash(KEY).await.unwrap();
    let before = runs(&credentials);
    let mut refused = 0;
    for n in 0..50 {
        let guess = format!("guess {n}");
        for (name, stored) in [("tenant", Some(&stored)), ("nobody", None)] {
            match verdict(&credentials, attempt(name, &guess, stored)).await {
                Verdict::Refused => refused += 1,
                other => assert!(is_limited(&other), "{other:?}"),
            }
        }
        // From the same address.
        let good = attempt("tenant", KEY, Some(&stored));
        assert_eq!(verdict(&credentials, good).await, Verdict::Verified);
    }
    assert_eq!(refused, 10);
    assert_eq!(runs(&credentials), before);
}

#[tokio::test]
async fn a_flood_of_checks_by_bcrypt_runs_into_the_limit_and_leaves_others_alone() {
    let credentials = limited(5);
    let (stored, other) = (
        hash_alone(&credentials, KEY).await,
        hash_alone(&credentials, "other").await,
    );
    let before = runs(&credentials);
    let guesses: Vec<String> = (0..50).map(|n| format!("guess {n}")).collect();
    for guess in &guesses {
        match verdict(&credentials, attempt("tenant", guess, Some(&stored))).await {
            Verdict::Refused => {}
            other => assert!(is_limited(&other), "{other:?}"),
        }
    }
    assert_eq!(runs(&credentials) - before, 5);
    let verified = |verdict| matches!(verdict, Verdict::VerifiedByHash { .. });
    // Others at the same address.
    let elsewhere = attempt("other", "other", Some(&other));
    assert!(verified(verdict(&credentials, elsewhere).await));
    // The same tenant at another address.
    let moved = Attempt {
        peer: Some([192, 0, 2, 2].into()),
        ..attempt("tenant", KEY, Some(&stored))
    };
    assert!(verified(verdict(&credentials, moved).await));
    // Many names use up the limit of the address, except for names whose keys were verified before.
    for name in ["a", "b", "c"] {
        for guess in &guesses {
            verdict(&credentials, attempt(name, guess, Some(&stored))).await;
        }
    }
    let late = attempt("late", "other", Some(&other));
    assert!(is_limited(&verdict(&credentials, late).await));
    let changed = StoredKey {
        digest: credentials.hash(KEY).await.unwrap().digest,
        ..other.clone()
    };
    let changed = attempt("changed", "other", Some(&changed));
    assert!(verified(verdict(&credentials, changed).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_clients_with_one_key_cost_one_check() {
    let credentials = limited(1);
    let stored = hash_alone(&credentials, KEY).await;
    let before = runs(&credentials);
    // Otherwise the check may end before the last client asks.
    let busy = credentials.inner.gate.keep_busy();
    let mut clients: Vec<_> = (0..100)
        .map(|_| Box::pin(credentials.verify(attempt("tenant", KEY, Some(&stored)))))
        .collect();
    for client in &mut clients {
        assert!(futures::poll!(client).is_pending());
    }
    drop(busy);
    let verdicts = futures::future::try_join_all(clients).await.unwrap();
    let verified = |verdict: &&Verdict| **verdict == Verdict::Verified;
    assert_eq!(verdicts.iter().filter(verified).count(), 99);
    assert!(matches!(verdicts[0], Verdict::VerifiedByHash { .. }));
    assert_eq!(runs(&credentials) - before, 1);
    assert!(credentials.inner.running.lock().is_empty());
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_the_check_to_the_next() {
    let credentials = Credentials::with_cost(4);
    let stored = hash_alone(&credentials, KEY).await;
    let good = attempt("tenant", KEY, Some(&stored));
    // Otherwise the check may end before the second client waits.
    let busy = credentials.inner.gate.keep_busy();
    let first = credentials.verify(good);
    let mut first = Box::pin(first);
    assert!(futures::poll!(&mut first).is_pending());
    let mut second = Box::pin(credentials.verify(good));
    assert!(futures::poll!(&mut second).is_pending());
    drop(first);
    drop(busy);
    let verdict = second.await.unwrap();
    assert!(matches!(verdict, Verdict::VerifiedByHash { .. }));
    assert!(credentials.inner.running.lock().is_empty());
}
