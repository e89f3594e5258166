//! Tenants that request, extend and retire sessions, hang up, lose replies, and check the keys on their nodes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::environment::{EXPIRING, POOLS, Tenant};
use super::log::{Finding, Log, Retirement, without_numbers};
use super::machines::Machines;
use super::rng::Rng;
use crate::support::{Api, Reply};

/// The time limit to retire sessions at the end, without faults.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(40);

/// The number of attempts if replies are lost.
const MAX_ATTEMPTS: usize = 4;

/// A tenant. It does one operation at a time.
pub struct Client<'a> {
    tenant: Tenant,
    apis: [Api; 2],
    ports: [u16; 2],
    rng: Rng,
    log: &'a Log,
    machines: &'a Machines,
    /// Granted sessions that the client has not retired.
    sessions: Vec<i64>,
    /// Sessions to retire, without a reply so far.
    unconfirmed: Vec<i64>,
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Request,
    HangUp,
    Extend,
    Retire,
    RetireLost,
    Read,
}

impl<'a> Client<'a> {
    pub fn new(
        tenant: &Tenant,
        ports: [u16; 2],
        seed: u64,
        log: &'a Log,
        machines: &'a Machines,
    ) -> Self {
        Self {
            apis: ports.map(|port| Api::new(port, tenant.name, &tenant.api_key)),
            ports,
            rng: Rng::new(seed, tenant.name),
            tenant: tenant.clone(),
            log,
            machines,
            sessions: Vec::new(),
            unconfirmed: Vec::new(),
        }
    }

    /// Runs operations until the run stops.
    pub fn run(&mut self) {
        let pause = self.rng.millis(0, 500);
        let mut stop = self.log.wait(pause);
        while !stop {
            let full = self.sessions.len() > 2;
            let operation = self.rng.choose_weighted(&[
                (if full { 0 } else { 8 }, Operation::Request),
                (1, Operation::HangUp),
                (1, Operation::Extend),
                (if full { 8 } else { 3 }, Operation::Retire),
                (1, Operation::RetireLost),
                (2, Operation::Read),
            ]);
            match operation {
                Operation::Request => self.request(),
                Operation::HangUp => self.hang_up(),
                Operation::Extend => self.extend(),
                Operation::Retire => self.retire_one(),
                Operation::RetireLost => self.retire_lost(),
                Operation::Read => self.read_something(),
            }
            let pause = self.rng.millis(50, 600);
            stop = self.log.wait(pause);
        }
    }

    /// Retires most sessions, and repeats each request until there is a reply.
    pub fn finish(&mut self) {
        let start = Instant::now();
        for id in std::mem::take(&mut self.sessions) {
            if self.rng.chance(50) && self.tenant.name != EXPIRING {
                self.check_keys(id);
            } else {
                self.unconfirmed.push(id);
            }
        }
        while !self.unconfirmed.is_empty() && start.elapsed() < RETIRE_TIMEOUT {
            self.retire_unconfirmed();
        }
        for id in std::mem::take(&mut self.unconfirmed) {
            let what = format!("session {id}: no reply to its retirement");
            self.log.report(Finding::new(what).of_session(id));
        }
    }

    fn call(&mut self, method: &str, path: &str, body: Option<&Value>) -> Option<Reply> {
        self.send(method, path, body, |api| api.call(method, path, body))
    }

    /// Sends a request to one of the two servers.
    fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        send: impl Fn(&Api) -> Result<Reply, String>,
    ) -> Option<Reply> {
        let first = self.rng.below(2);
        let mut reply = send(&self.apis[first]);
        // Try the other server.
        if reply.as_ref().is_err_and(|error| error.contains("refused")) {
            self.log.count("connection refused");
            reply = send(&self.apis[1 - first]);
        }
        let name = self.tenant.name;
        let what = format!("{method} {}", without_numbers(path));
        match reply {
            Ok(reply) => {
                let detail = &reply.json["detail"];
                let detail = detail.as_str().unwrap_or_default();
                self.log.write(&format!(
                    "{name} {method} {path} {}: {} {detail}",
                    body.map(ToString::to_string).unwrap_or_default(),
                    reply.status
                ));
                let kind = without_numbers(detail);
                self.log.count(&format!("{what}: {} {kind}", reply.status));
                let known = match reply.status {
                    200 | 201 | 422 | 503 => true,
                    403 => detail.starts_with("quota exceeded"),
                    _ => false,
                };
                if !known {
                    let text = &reply.text;
                    let what = format!("{name}: {what}: {} {text}", reply.status);
                    self.log.report(Finding::new(what));
                }
                Some(reply)
            }
            Err(error) => {
                self.log
                    .write(&format!("{name} {method} {path}: lost: {error}"));
                self.log.count(&format!("{what}: no reply"));
                // No fault delays a reply for so long.
                if error.contains("timeout") {
                    self.log
                        .report(Finding::new(format!("{name}: {method} {path}: {error}")));
                }
                None
            }
        }
    }

    fn session_request(&mut self) -> Value {
        let first = self.rng.choose(&POOLS).name;
        let quantity = 1 + self.rng.below(3).min(self.rng.below(3));
        let mut specs = vec![json!({"pool": first, "quantity": quantity})];
        if quantity < 3 && self.rng.chance(25) {
            let second = self.rng.choose(&POOLS).name;
            specs.push(json!({"pool": second, "quantity": 1}));
        }
        json!({"nodes_specs": specs})
    }

    fn request(&mut self) {
        let body = self.session_request();
        if self.rng.chance(60) {
            let key = self.new_key();
            self.request_with_key(&body, &key);
        } else if let Some(reply) = self.call("POST", "sessions", Some(&body)) {
            self.accept(&body, &reply);
        }
    }

    fn new_key(&mut self) -> String {
        format!("{}-{}", self.tenant.name, self.rng.below(usize::MAX))
    }

    fn post(&mut self, body: &Value, key: &str) -> Option<Reply> {
        self.send("POST", "sessions", Some(body), |api| {
            api.post_with_key(body, key)
        })
    }

    /// Repeats a request until there is a reply. A repeated request must get the same reply.
    fn request_with_key(&mut self, body: &Value, key: &str) {
        let mut reply = None;
        for _ in 0..MAX_ATTEMPTS {
            reply = self.post(body, key);
            let pause = self.rng.millis(50, 500);
            if reply.is_some() || self.log.wait(pause) {
                break;
            }
            self.log.count("repeated with the same key");
        }
        let Some(reply) = reply else { return };
        self.accept(body, &reply);
        if reply.status == 201
            && self.rng.chance(20)
            && let Some(again) = self.post(body, key)
            && again.status != 503
            && (again.status, &again.text) != (201, &reply.text)
        {
            let what = format!("key {key}: {}, then {}", reply.text, again.text);
            self.log.report(Finding::new(what));
        }
    }

    fn accept(&mut self, body: &Value, reply: &Reply) {
        if reply.status != 201 {
            return;
        }
        let session = &reply.json["session"];
        let id = self.log.add_session(self.tenant.name, session);
        self.log.write(&format!(
            "{} has session {id}: {}",
            self.tenant.name,
            summary(session)
        ));
        self.sessions.push(id);
        let specs = body["nodes_specs"].as_array().unwrap().iter();
        let quantity: u64 = specs.filter_map(|spec| spec["quantity"].as_u64()).sum();
        let nodes = session["nodes"].as_array().unwrap();
        let deployed = nodes.iter().filter(|node| node["state"] == "deployed");
        if deployed.count() as u64 != quantity || nodes.len() as u64 != quantity {
            let what = format!("session {id} does not have {quantity} deployed nodes: {session}");
            self.log.report(Finding::new(what).of_session(id));
        }
        self.check_keys_of(id, nodes);
    }

    /// Checks that all nodes of an active session have the key of the tenant and no other.
    fn check_keys(&mut self, id: i64) {
        let Some(reply) = self.call("GET", &format!("sessions/{id}"), None) else {
            return;
        };
        if reply.status == 200 {
            let session = &reply.json["session"];
            if session["active"] == false && self.log.must_be_active(id) {
                let what = format!("session {id} is retired, but nobody has retired it");
                self.log.report(Finding::new(what).of_session(id));
            }
            self.check_keys_of(id, session["nodes"].as_array().unwrap_or(&Vec::new()));
        }
    }

    fn check_keys_of(&self, id: i64, nodes: &[Value]) {
        for node in nodes {
            let ipaddr = node["ipaddr"].as_str().unwrap_or_default();
            // The machine may no longer exist.
            if let Some(keys) = self.machines.tenant_keys(ipaddr)
                && keys != [self.tenant.ssh_key.clone()]
                && self.log.must_be_active(id)
            {
                let number = node["id"].as_i64().unwrap_or_default();
                let tenant = self.tenant.name;
                let what = format!(
                    "node {number} of session {id} at {ipaddr} has {keys:?} instead of the key of {tenant}"
                );
                self.log
                    .report(Finding::new(what).of_node(number).of_session(id));
            }
        }
    }

    /// Sends a request and hangs up. Sometimes it repeats the request.
    fn hang_up(&mut self) {
        let request = self.session_request();
        let body = request.to_string();
        let key = self.new_key();
        let with_key = self.rng.chance(40);
        let header = if with_key {
            format!("idempotency-key: {key}\r\n")
        } else {
            String::new()
        };
        let port = self.rng.choose(&self.ports);
        let credentials = STANDARD.encode(format!("{}:{}", self.tenant.name, self.tenant.api_key));
        let timeout = self.rng.millis(0, 400);
        let whole = !self.rng.chance(20);
        let text = format!(
            "POST /api/v1/sessions HTTP/1.1\r\nhost: x\r\nauthorization: Basic {credentials}\r\n\
             {header}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let sent = if whole { text.len() } else { text.len() - 5 };
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
            return;
        };
        stream.write_all(&text.as_bytes()[..sent]).ok();
        stream
            .set_read_timeout(Some(timeout.max(Duration::from_millis(1))))
            .ok();
        let replied = stream.read(&mut [0; 16]).is_ok_and(|read| read > 0);
        stream.shutdown(Shutdown::Both).ok();
        let name = self.tenant.name;
        self.log
            .write(&format!("{name} hung up, got a reply: {replied}"));
        self.log.count("hung up");
        if with_key && self.rng.chance(60) {
            self.request_with_key(&request, &key);
        }
    }

    fn extend(&mut self) {
        let Some(id) = self.choose_session() else {
            return;
        };
        let by = self.rng.choose(&["+2s", "+5m", "+1h"]);
        let body = json!({ "expires_at": by });
        let must_be_active = self.log.must_be_active(id);
        let Some(reply) = self.call("PUT", &format!("sessions/{id}"), Some(&body)) else {
            return;
        };
        match reply.status {
            200 => {
                let expires_at = reply.json["session"]["expires_at"].as_str();
                let expires_at = expires_at.unwrap().parse().unwrap();
                self.log.set_expiry(id, expires_at);
            }
            422 if must_be_active && self.log.must_be_active(id) => {
                let what = format!("session {id} cannot be extended: {}", reply.text);
                self.log.report(Finding::new(what).of_session(id));
            }
            _ => {}
        }
    }

    fn choose_session(&mut self) -> Option<i64> {
        (!self.sessions.is_empty()).then(|| self.sessions[self.rng.below(self.sessions.len())])
    }

    fn retire_one(&mut self) {
        if let Some(id) = self.choose_session() {
            self.check_keys(id);
            self.sessions.retain(|other| *other != id);
            // The sessions of this tenant expire.
            if self.tenant.name != EXPIRING || self.rng.chance(30) {
                self.unconfirmed.push(id);
            }
        }
        self.retire_unconfirmed();
    }

    fn retire_unconfirmed(&mut self) {
        for id in std::mem::take(&mut self.unconfirmed) {
            let must_be_active = self.log.must_be_active(id);
            self.log.set_retirement(id, Retirement::Requested);
            let body = json!({"active": false});
            let reply = self.call("PUT", &format!("sessions/{id}"), Some(&body));
            match reply.map(|reply| (reply.status, reply.json, reply.text)) {
                Some((200, json, _)) if json["session"]["active"] == false => {
                    self.log.set_retirement(id, Retirement::Confirmed);
                }
                Some((422, _, text)) => {
                    // The session may have expired during the request.
                    if must_be_active && !self.log.has_expired(id) {
                        let what = format!("session {id} was already retired: {text}");
                        self.log.report(Finding::new(what).of_session(id));
                    }
                    self.log.set_retirement(id, Retirement::Confirmed);
                }
                Some((200, _, text)) => {
                    let what = format!("session {id} is active after a 200: {text}");
                    self.log.report(Finding::new(what).of_session(id));
                }
                _ => self.unconfirmed.push(id),
            }
        }
    }

    /// Retires sessions whose replies were lost.
    fn retire_lost(&mut self) {
        let Some(reply) = self.call("GET", "sessions", None) else {
            return;
        };
        let none = Vec::new();
        let sessions = reply.json["sessions"].as_array().unwrap_or(&none);
        for id in sessions.iter().filter_map(|session| session["id"].as_i64()) {
            if !self.sessions.contains(&id) && !self.unconfirmed.contains(&id) {
                self.log.count("lost session found");
                self.unconfirmed.push(id);
            }
        }
        self.retire_unconfirmed();
    }

    fn read_something(&mut self) {
        let path = self
            .rng
            .choose(&["pools/cloud", "sessions", "nodes", "pools"]);
        self.call("GET", path, None);
        if let Some(id) = self.choose_session() {
            self.check_keys(id);
        }
    }
}

fn summary(session: &Value) -> String {
    let nodes = session["nodes"].as_array().into_iter().flatten();
    let nodes: Vec<String> = nodes
        .map(|node| format!("{} {} {}", node["id"], node["pool"], node["ipaddr"]))
        .collect();
    format!("{} until {}", nodes.join(", "), session["expires_at"])
}
