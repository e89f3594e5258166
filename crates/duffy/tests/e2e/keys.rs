//! API keys: keys of the original, changed keys, and wrong keys.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::{Api, Lab, Pool, eventually};

/// Returns the digest in the tenant's row, or an empty text.
fn digest(lab: &Lab) -> String {
    lab.sql("SELECT api_key_digest FROM tenants WHERE name = 'tenant'")
}

/// Returns a new wrong key.
fn wrong_key() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("00000000-0000-4000-8000-{number:012}")
}

fn status(api: &Api) -> u16 {
    api.call("GET", "sessions", None).unwrap().status
}

#[test]
fn keys_of_the_original_are_verified_once_and_changes_count_immediately() {
    for on_postgres in [true, false] {
        let lab = Lab::of_original(
            on_postgres,
            &[Pool::simulated("pool", 1, &json!({}))],
            &json!({}),
        );
        let duffy = lab.site.duffy();
        duffy.succeed(&["migration", "upgrade"]);
        assert_eq!(digest(&lab), "");
        let server = lab.start(&["serve"]);
        assert_eq!(status(&lab.tenant()), 200);
        let first = digest(&lab);
        assert!(first.starts_with("1:"), "{first:?}");
        // After a restart, the digest is sufficient.
        drop(server);
        let _server = lab.start(&["serve"]);
        let wrong = Api::new(lab.port(), "tenant", &wrong_key());
        assert_eq!((status(&lab.tenant()), status(&wrong)), (200, 401));
        assert_eq!(digest(&lab), first);

        // The original changes only the hash.
        lab.sql(
            "UPDATE tenants SET api_key = \
             (SELECT api_key FROM tenants WHERE name = 'admin') WHERE name = 'tenant'",
        );
        let admin = lab.admin();
        let (_, key) = admin.credentials();
        let changed = Api::new(lab.port(), "tenant", key);
        assert_eq!((status(&lab.tenant()), status(&changed)), (401, 200));
        assert_ne!(digest(&lab), first);
        assert_eq!((status(&lab.tenant()), status(&changed)), (401, 200));
        duffy.succeed(&["admin", "retire-tenant", "tenant"]);
        assert_eq!(status(&changed), 403);

        // Downgrade for the original and upgrade again.
        duffy.succeed(&["admin", "retire-tenant", "--unretire", "tenant"]);
        duffy.succeed(&["migration", "downgrade", "6654d536b836"]);
        duffy.succeed(&["migration", "upgrade"]);
        assert_eq!(digest(&lab), "");
        assert_eq!((status(&changed), status(&lab.tenant())), (200, 401));
    }
}

#[test]
fn a_flood_of_wrong_keys_blocks_no_correct_key() {
    let lab = Lab::on_postgres(&[Pool::simulated("pool", 1, &json!({}))], &json!({}));
    let _server = lab.start(&["serve"]);
    let (end, tenant) = (AtomicBool::new(false), lab.tenant());
    let limited = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for name in ["tenant", "tenant", "admin", "nobody"] {
            let (end, limited, port) = (&end, &limited, lab.port());
            scope.spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    let wrong = Api::new(port, name, &wrong_key());
                    match status(&wrong) {
                        401 => {}
                        429 => limited.store(true, Ordering::Relaxed),
                        other => panic!("{other}"),
                    }
                }
            });
        }
        // Wait until Duffy limits the wrong keys.
        eventually(Duration::from_mins(1), "a limit", || {
            limited
                .load(Ordering::Relaxed)
                .then_some(())
                .ok_or_else(String::new)
        });
        let correct: Vec<u16> = (0..50).map(|_| status(&tenant)).collect();
        end.store(true, Ordering::Relaxed);
        assert_eq!(correct, [200; 50]);
    });
}
