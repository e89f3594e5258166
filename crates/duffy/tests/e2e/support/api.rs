//! The web API.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::http::{Reply, http, send};
use super::wait::eventually;

/// The timeout of all waits. It is long, because many tests run at the same time.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The API of a server, and the credentials of a tenant.
#[derive(Debug, Clone)]
pub struct Api {
    base: String,
    name: String,
    key: String,
}

impl Api {
    /// Returns the API of a server on this port of 127.0.0.1.
    pub fn new(port: u16, name: &str, key: &str) -> Self {
        Self {
            base: format!("http://127.0.0.1:{port}"),
            name: name.to_owned(),
            key: key.to_owned(),
        }
    }

    /// Name and API key.
    pub fn credentials(&self) -> (&str, &str) {
        (&self.name, &self.key)
    }

    /// Sends a request. Fails if there is no reply.
    pub fn call(&self, method: &str, path: &str, json: Option<&Value>) -> Result<Reply, String> {
        let url = format!("{}/api/v1/{path}", self.base);
        http(method, &url, Some((&self.name, &self.key)), json)
    }

    /// Returns the reply to `GET path`, which must succeed.
    pub fn get(&self, path: &str) -> Value {
        let reply = self.call("GET", path, None).unwrap();
        assert_eq!(reply.status, 200, "GET {path}: {}", reply.text);
        reply.json
    }

    /// Requests a session with these numbers of nodes of pools. Returns any reply.
    pub fn ask(&self, specs: &[(&str, u32)]) -> Result<Reply, String> {
        let body = json!({"nodes_specs": nodes_specs(specs)});
        self.call("POST", "sessions", Some(&body))
    }

    /// Like [`Api::ask`], with an `Idempotency-Key`.
    pub fn ask_with_key(&self, specs: &[(&str, u32)], key: &str) -> Result<Reply, String> {
        self.post_with_key(&json!({"nodes_specs": nodes_specs(specs)}), key)
    }

    /// Sends this session request with an `Idempotency-Key`.
    pub fn post_with_key(&self, body: &Value, key: &str) -> Result<Reply, String> {
        let url = format!("{}/api/v1/sessions", self.base);
        let pair = STANDARD.encode(format!("{}:{}", self.name, self.key));
        let headers = [
            ("authorization", format!("Basic {pair}")),
            ("content-type", "application/json".to_owned()),
            ("idempotency-key", key.to_owned()),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value));
        send("POST", &url, &headers, Some(&body.to_string()))
    }

    /// Requests a session, which must be granted.
    pub fn request(&self, specs: &[(&str, u32)]) -> Value {
        let reply = self.ask(specs).unwrap();
        assert_eq!(reply.status, 201, "{specs:?}: {}", reply.text);
        reply.json["session"].clone()
    }

    /// Retires a session, which must succeed.
    pub fn retire(&self, session: &Value) {
        let path = format!("sessions/{}", session["id"]);
        let reply = self
            .call("PUT", &path, Some(&json!({"active": false})))
            .unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(reply.json["session"]["active"], false, "{}", reply.text);
    }

    /// Returns all nodes that are not retired.
    pub fn nodes(&self) -> Vec<Value> {
        self.get("nodes")["nodes"].as_array().unwrap().clone()
    }

    /// Returns the node with this id.
    pub fn node(&self, id: &Value) -> Value {
        self.get(&format!("nodes/{id}"))["node"].clone()
    }

    /// Waits until `probe` returns `Ok`. Its requests may fail.
    pub fn wait<T>(&self, what: &str, probe: impl Fn(&Self) -> Result<T, String>) -> T {
        eventually(TIMEOUT, what, || probe(self))
    }

    /// Waits until a node is in a state. Returns the node.
    pub fn wait_state(&self, id: &Value, state: &str) -> Value {
        self.wait(&format!("node {id} to be {state}"), |api| {
            let reply = api.call("GET", &format!("nodes/{id}"), None)?;
            let node = &reply.json["node"];
            if node["state"] == state {
                Ok(node.clone())
            } else {
                Err(reply.text)
            }
        })
    }

    /// Waits until this number of nodes of a pool is ready, and none is in another state.
    pub fn wait_filled(&self, pool: &str, ready: u64) {
        self.wait_levels(pool, &json!({"ready": ready}));
    }

    /// Waits until a pool has these numbers of nodes by state, and none in other states.
    pub fn wait_levels(&self, pool: &str, levels: &Value) {
        let mut wanted = json!({"provisioning": 0, "ready": 0, "contextualizing": 0,
            "deployed": 0, "deprovisioning": 0});
        for (state, quantity) in levels.as_object().unwrap() {
            wanted[state] = quantity.clone();
        }
        self.wait(&format!("pool {pool} to have {levels}"), |api| {
            let reply = api.call("GET", &format!("pools/{pool}"), None)?;
            if reply.json["pool"]["levels"] == wanted {
                Ok(())
            } else {
                Err(reply.text)
            }
        });
    }
}

fn nodes_specs(specs: &[(&str, u32)]) -> Vec<Value> {
    let spec = |(pool, quantity): &(&str, u32)| json!({"pool": pool, "quantity": quantity});
    specs.iter().map(spec).collect()
}

/// Runs `work` this many times at the same time, each in its own thread. Returns the results.
pub fn run_concurrently<T: Send>(times: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Arc::new(Barrier::new(times));
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..times)
            .map(|number| {
                let (start, work) = (Arc::clone(&start), &work);
                scope.spawn(move || {
                    start.wait();
                    work(number)
                })
            })
            .collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    })
}
