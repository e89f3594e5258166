//! Keys are checked rightly, once, and within limits.
#![cfg(feature = "app")]

use std::num::NonZeroU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::limiter::{Limiter, Rate, Rates};
use super::*;

const KEY: &str = "a8b9899d-b128-59a1-aa86-754920b7f5ed";

fn attempt<'a>(name: &'a str, key: &'a str, stored: Option<&'a str>) -> Attempt<'a> {
    Attempt {
        name,
        key,
        stored,
        peer: Some([192, 0, 2, 1].into()),
    }
}

fn runs(credentials: &Credentials) -> usize {
    credentials.inner.gate.runs.load(Ordering::Relaxed)
}

/// With room for so many checks of one tenant, and no more in the time of a test.
fn limited(checks: u32) -> Credentials {
    let rate = |burst| Rate {
        burst: NonZeroU32::new(burst).unwrap(),
        period: Duration::from_hours(1),
    };
    let mut credentials = Credentials::with_cost(4);
    Arc::get_mut(&mut credentials.inner).unwrap().limiter = Limiter::new(Rates {
        peer: rate(1000),
        tenant: rate(checks),
    });
    credentials
}

#[tokio::test]
async fn hashes_have_the_form_that_the_original_reads() {
    let credentials = Credentials::with_cost(4);
    let hash = credentials.hash(KEY).await.unwrap();
    assert!(hash.starts_with("$2b$04$"), "{hash}");
    assert!(matches!(
        credentials.hash(&"x".repeat(73)).await,
        Err(CredentialsError::UnfitKey)
    ));
}

#[tokio::test]
async fn a_right_key_is_checked_once_and_a_wrong_one_too() {
    let credentials = Credentials::with_cost(4);
    let hash = credentials.hash(KEY).await.unwrap();
    let before = runs(&credentials);
    for _ in 0..3 {
        let verdict = credentials
            .verify(attempt("tenant", KEY, Some(&hash)))
            .await;
        assert_eq!(verdict.unwrap(), Verdict::Verified);
    }
    assert_eq!(runs(&credentials) - before, 1);
    for _ in 0..3 {
        let verdict = credentials
            .verify(attempt("tenant", "wrong", Some(&hash)))
            .await;
        assert_eq!(verdict.unwrap(), Verdict::Refused);
    }
    assert_eq!(runs(&credentials) - before, 2);
}

#[tokio::test]
async fn hashes_of_the_original_are_understood() {
    // By Python's bcrypt, of the key above.
    let stored = "$2b$06$YthXLtAkit974vvP9KTjAuCtINQ.CZfKoixv4So3KUgXwge/TPHDG";
    let credentials = Credentials::with_cost(4);
    let verdict = credentials
        .verify(attempt("tenant", KEY, Some(stored)))
        .await;
    assert_eq!(verdict.unwrap(), Verdict::Verified);
}

#[tokio::test]
async fn a_changed_key_counts_at_once() {
    let credentials = Credentials::with_cost(4);
    let old = credentials.hash(KEY).await.unwrap();
    let new = credentials.hash("another").await.unwrap();
    let verdict = credentials.verify(attempt("tenant", KEY, Some(&old))).await;
    assert_eq!(verdict.unwrap(), Verdict::Verified);
    let verdict = credentials.verify(attempt("tenant", KEY, Some(&new))).await;
    assert_eq!(verdict.unwrap(), Verdict::Refused);
    let verdict = credentials
        .verify(attempt("tenant", "another", Some(&new)))
        .await;
    assert_eq!(verdict.unwrap(), Verdict::Verified);
}

#[tokio::test]
async fn unknown_tenants_and_unfit_keys_cost_a_check_as_well() {
    let credentials = Credentials::with_cost(4);
    // The hash to compare with is made once.
    let verdict = credentials.verify(attempt("first", KEY, None)).await;
    assert_eq!(verdict.unwrap(), Verdict::Refused);
    let before = runs(&credentials);
    let verdict = credentials.verify(attempt("nobody", KEY, None)).await;
    assert_eq!(verdict.unwrap(), Verdict::Refused);
    assert_eq!(runs(&credentials) - before, 1);
    let hash = credentials.hash(&KEY.repeat(2)).await.unwrap();
    let before = runs(&credentials);
    for key in [KEY.repeat(3), format!("{KEY}\0")] {
        let verdict = credentials
            .verify(attempt("tenant", &key, Some(&hash)))
            .await;
        assert_eq!(verdict.unwrap(), Verdict::Refused);
    }
    assert_eq!(runs(&credentials) - before, 2);
    let verdict = credentials
        .verify(attempt("tenant", KEY, Some("no hash")))
        .await;
    assert_eq!(verdict.unwrap(), Verdict::Refused);
}

#[tokio::test]
async fn a_flood_of_wrong_keys_runs_into_the_limit_and_leaves_the_tenant_alone() {
    let credentials = limited(5);
    let hash = credentials.hash(KEY).await.unwrap();
    let good = attempt("tenant", KEY, Some(&hash));
    assert_eq!(credentials.verify(good).await.unwrap(), Verdict::Verified);
    let before = runs(&credentials);
    let mut refused = 0;
    for n in 0..20 {
        let key = format!("guess {n}");
        match credentials
            .verify(attempt("tenant", &key, Some(&hash)))
            .await
            .unwrap()
        {
            Verdict::Refused => refused += 1,
            Verdict::TooManyFailures { retry_after } => {
                assert!(retry_after > Duration::from_mins(50));
            }
            Verdict::Verified => panic!("guessed"),
        }
    }
    assert_eq!(refused, 4);
    assert_eq!(runs(&credentials) - before, 4);
    // The tenant itself, from the same address, and another one are served.
    assert_eq!(credentials.verify(good).await.unwrap(), Verdict::Verified);
    let other = attempt("other", KEY, Some(&hash));
    assert_eq!(credentials.verify(other).await.unwrap(), Verdict::Verified);
    // So is the tenant on another host, where nothing is remembered of its new key.
    let new = credentials.hash("new").await.unwrap();
    let elsewhere = Attempt {
        peer: Some([192, 0, 2, 2].into()),
        ..attempt("tenant", "new", Some(&new))
    };
    assert_eq!(
        credentials.verify(elsewhere).await.unwrap(),
        Verdict::Verified
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_clients_with_one_key_cost_one_check() {
    let credentials = limited(1);
    let hash = credentials.hash(KEY).await.unwrap();
    let before = runs(&credentials);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (credentials, hash) = (credentials.clone(), hash.clone());
        clients.spawn(async move {
            credentials
                .verify(attempt("tenant", KEY, Some(&hash)))
                .await
                .unwrap()
        });
    }
    let verdicts = clients.join_all().await;
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Verified));
    assert_eq!(runs(&credentials) - before, 1);
    assert!(credentials.inner.running.is_empty());
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_the_check_to_the_next() {
    let credentials = Credentials::with_cost(4);
    let hash = credentials.hash(KEY).await.unwrap();
    let good = attempt("tenant", KEY, Some(&hash));
    // Else the check may have ended when it is looked at.
    let busy = credentials.inner.gate.keep_busy();
    let first = credentials.verify(good);
    let mut first = Box::pin(first);
    assert!(futures::poll!(&mut first).is_pending());
    let mut second = Box::pin(credentials.verify(good));
    assert!(futures::poll!(&mut second).is_pending());
    drop(first);
    drop(busy);
    assert_eq!(second.await.unwrap(), Verdict::Verified);
    assert!(credentials.inner.running.is_empty());
}
