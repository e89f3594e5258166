//! Idempotency keys.

use chrono::TimeDelta;
use duffy_api::TenantCreate;
use duffy_server::db::idempotency::{self, NewKey};
use duffy_server::db::tenants;
use duffy_server::db::{Db, Interval, JsonObject, sessions};

use super::Engines;

macro_rules! tx {
    ($db:expr, |$tx:ident| $call:expr) => {
        $db.transaction(async |mut $tx| $call.await).await.unwrap()
    };
}

async fn new_tenant(db: &Db) -> i64 {
    let tenant = TenantCreate {
        name: "t".into(),
        is_admin: false,
        ssh_key: "ssh-ed25519 AAAA".into(),
        node_quota: None,
        session_lifetime: None,
        session_lifetime_max: None,
    };
    tx!(db, |tx| tenants::insert_tenant(
        &mut tx,
        &tenant,
        &"hash".into()
    ))
    .id
}

async fn new_session(db: &Db, tenant_id: i64) -> i64 {
    let (data, hour) = (JsonObject::default(), Interval(TimeDelta::hours(1)));
    tx!(db, |tx| sessions::insert_session(
        &mut tx, tenant_id, &data, hour, true
    ))
    .session
    .id
}

#[tokio::test]
async fn keys_are_claimed_fulfilled_and_forgotten() {
    let engines = Engines::new().await;
    for db in engines.both() {
        let tenant_id = new_tenant(db).await;
        let (first, second) = (
            new_session(db, tenant_id).await,
            new_session(db, tenant_id).await,
        );
        let key = NewKey {
            tenant_id,
            key: "key".into(),
            request: "digest".into(),
        };
        let find = async |tenant| {
            let found = tx!(db, |tx| idempotency::find_key(&mut tx, tenant, "key"));
            found.map(|row| (row.request, row.session_id, row.reply, row.retired_at))
        };
        assert_eq!(find(tenant_id).await, None);
        assert!(tx!(db, |tx| idempotency::insert_key(&mut tx, &key, first)));
        assert!(!tx!(db, |tx| idempotency::insert_key(
            &mut tx, &key, second
        )));
        let unanswered = Some(("digest".to_owned(), first, None, None));
        assert_eq!(find(tenant_id).await, unanswered);
        assert_eq!(find(tenant_id + 1).await, None);

        // The first session failed. Only one request takes the key over.
        for (from, to, taken) in [(first, second, true), (first, second, false)] {
            let took = tx!(db, |tx| idempotency::take_key_over(&mut tx, &key, from, to));
            assert_eq!(took, taken);
        }
        for reply in ["reply", "another"] {
            tx!(db, |tx| idempotency::write_reply(&mut tx, second, reply));
        }
        let answered = ("digest".to_owned(), second, Some("reply".to_owned()), None);
        assert_eq!(find(tenant_id).await, Some(answered));
        let from_answered = tx!(db, |tx| idempotency::take_key_over(
            &mut tx, &key, second, first
        ));
        assert!(!from_answered);

        let mark = async |session| {
            tx!(db, |tx| idempotency::mark_fetched(
                &mut tx, tenant_id, "key", session
            ))
        };
        let forget = async || {
            tx!(db, |tx| idempotency::delete_unfetched(
                &mut tx, tenant_id, "key", second
            ))
        };
        assert!(!mark(first).await);
        assert!(mark(second).await);
        assert!(!forget().await);

        // Young keys and those of active sessions are kept.
        let prune = async |age| tx!(db, |tx| idempotency::delete_old_keys(&mut tx, age, 10));
        assert_eq!(prune(-60.0).await, 0);
        tx!(db, |tx| sessions::retire_session(&mut tx, second, None));
        assert_eq!(prune(60.0).await, 0);
        assert!(find(tenant_id).await.unwrap().3.is_some());
        assert_eq!(prune(-60.0).await, 1);
        assert_eq!(find(tenant_id).await, None);

        assert!(tx!(db, |tx| idempotency::insert_key(&mut tx, &key, second)));
        assert!(forget().await);
        assert_eq!(find(tenant_id).await, None);
    }
}
