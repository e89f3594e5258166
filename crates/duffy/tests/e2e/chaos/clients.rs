//! Tenants that come and go: they request, extend, retire, hang up, lose answers, and look at what they got.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::dice::Dice;
use super::record::{End, Finding, Record, without_numbers};
use super::room::Room;
use super::stage::{HASTY, POOLS, Tenant};
use crate::support::{Api, Reply};

/// How long a tenant tries to retire a session at the end, when nothing is wrong any more.
const INSISTENCE: Duration = Duration::from_secs(40);

/// How often a request is sent whose answer is lost.
const TRIES: usize = 4;

/// A tenant at work. It does one thing at a time.
pub struct Client<'a> {
    tenant: Tenant,
    apis: [Api; 2],
    ports: [u16; 2],
    dice: Dice,
    record: &'a Record,
    room: &'a Room,
    /// Sessions that were granted and not given back.
    held: Vec<i64>,
    /// Sessions that are to end, for which there is no answer yet.
    doubtful: Vec<i64>,
}

#[derive(Debug, Clone, Copy)]
enum Wish {
    Request,
    HangUp,
    Extend,
    Retire,
    Tidy,
    Look,
}

impl<'a> Client<'a> {
    pub fn new(
        tenant: &Tenant,
        ports: [u16; 2],
        seed: u64,
        record: &'a Record,
        room: &'a Room,
    ) -> Self {
        Self {
            apis: ports.map(|port| Api::new(port, tenant.name, &tenant.api_key)),
            ports,
            dice: Dice::new(seed, tenant.name),
            tenant: tenant.clone(),
            record,
            room,
            held: Vec::new(),
            doubtful: Vec::new(),
        }
    }

    /// Goes on until it is time to stop.
    pub fn run(&mut self) {
        let pause = self.dice.millis(0, 500);
        let mut stop = self.record.wait(pause);
        while !stop {
            let full = self.held.len() > 2;
            let wish = self.dice.weigh(&[
                (if full { 0 } else { 8 }, Wish::Request),
                (1, Wish::HangUp),
                (1, Wish::Extend),
                (if full { 8 } else { 3 }, Wish::Retire),
                (1, Wish::Tidy),
                (2, Wish::Look),
            ]);
            match wish {
                Wish::Request => self.request(),
                Wish::HangUp => self.hang_up(),
                Wish::Extend => self.extend(),
                Wish::Retire => self.give_back(),
                Wish::Tidy => self.tidy(),
                Wish::Look => self.look(),
            }
            let pause = self.dice.millis(50, 600);
            stop = self.record.wait(pause);
        }
    }

    /// Gives back what it held, but for some, and sees to it that every retire is answered.
    pub fn settle(&mut self) {
        let start = Instant::now();
        for id in std::mem::take(&mut self.held) {
            if self.dice.happens(50) && self.tenant.name != HASTY {
                self.check_keys(id);
            } else {
                self.doubtful.push(id);
            }
        }
        while !self.doubtful.is_empty() && start.elapsed() < INSISTENCE {
            self.retire_doubtful();
        }
        for id in std::mem::take(&mut self.doubtful) {
            let what = format!("session {id}: nobody answers its retire");
            self.record.find(Finding::new(what).of_session(id));
        }
    }

    fn call(&mut self, method: &str, path: &str, body: Option<&Value>) -> Option<Reply> {
        self.send(method, path, body, |api| api.call(method, path, body))
    }

    /// At one of both servers.
    fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        send: impl Fn(&Api) -> Result<Reply, String>,
    ) -> Option<Reply> {
        let first = self.dice.below(2);
        let mut reply = send(&self.apis[first]);
        // Nobody took it: the other server may.
        if reply.as_ref().is_err_and(|error| error.contains("refused")) {
            self.record.count("connection refused");
            reply = send(&self.apis[1 - first]);
        }
        let name = self.tenant.name;
        let what = format!("{method} {}", without_numbers(path));
        match reply {
            Ok(reply) => {
                let detail = &reply.json["detail"];
                let detail = detail.as_str().unwrap_or_default();
                self.record.note(&format!(
                    "{name} {method} {path} {}: {} {detail}",
                    body.map(ToString::to_string).unwrap_or_default(),
                    reply.status
                ));
                let kind = without_numbers(detail);
                self.record
                    .count(&format!("{what}: {} {kind}", reply.status));
                let known = match reply.status {
                    200 | 201 | 422 | 503 => true,
                    403 => detail.starts_with("quota exceeded"),
                    _ => false,
                };
                if !known {
                    let text = &reply.text;
                    let what = format!("{name}: {what}: {} {text}", reply.status);
                    self.record.find(Finding::new(what));
                }
                Some(reply)
            }
            Err(error) => {
                self.record
                    .note(&format!("{name} {method} {path}: lost: {error}"));
                self.record.count(&format!("{what}: no answer"));
                // Nothing that is done to it keeps a server from an answer for so long.
                if error.contains("timeout") {
                    self.record
                        .find(Finding::new(format!("{name}: {method} {path}: {error}")));
                }
                None
            }
        }
    }

    fn wanted(&mut self) -> Value {
        let first = self.dice.pick(&POOLS).name;
        let quantity = 1 + self.dice.below(3).min(self.dice.below(3));
        let mut specs = vec![json!({"pool": first, "quantity": quantity})];
        if quantity < 3 && self.dice.happens(25) {
            let second = self.dice.pick(&POOLS).name;
            specs.push(json!({"pool": second, "quantity": 1}));
        }
        json!({"nodes_specs": specs})
    }

    fn request(&mut self) {
        let wanted = self.wanted();
        if self.dice.happens(60) {
            let key = self.new_key();
            self.request_with_key(&wanted, &key);
        } else if let Some(reply) = self.call("POST", "sessions", Some(&wanted)) {
            self.take(&wanted, &reply);
        }
    }

    fn new_key(&mut self) -> String {
        format!("{}-{}", self.tenant.name, self.dice.below(usize::MAX))
    }

    fn post(&mut self, wanted: &Value, key: &str) -> Option<Reply> {
        self.send("POST", "sessions", Some(wanted), |api| {
            api.post_with_key(wanted, key)
        })
    }

    /// Asks until there is an answer, for a while. The same request again must have the same answer.
    fn request_with_key(&mut self, wanted: &Value, key: &str) {
        let mut answer = None;
        for _ in 0..TRIES {
            answer = self.post(wanted, key);
            let pause = self.dice.millis(50, 500);
            if answer.is_some() || self.record.wait(pause) {
                break;
            }
            self.record.count("asked again with the same key");
        }
        let Some(reply) = answer else { return };
        self.take(wanted, &reply);
        if reply.status == 201
            && self.dice.happens(20)
            && let Some(again) = self.post(wanted, key)
            && again.status != 503
            && (again.status, &again.text) != (201, &reply.text)
        {
            let what = format!("key {key}: {}, then {}", reply.text, again.text);
            self.record.find(Finding::new(what));
        }
    }

    fn take(&mut self, wanted: &Value, reply: &Reply) {
        if reply.status != 201 {
            return;
        }
        let session = &reply.json["session"];
        let id = self.record.granted(self.tenant.name, session);
        self.record.note(&format!(
            "{} has session {id}: {}",
            self.tenant.name,
            brief(session)
        ));
        self.held.push(id);
        let specs = wanted["nodes_specs"].as_array().unwrap().iter();
        let quantity: u64 = specs.filter_map(|spec| spec["quantity"].as_u64()).sum();
        let nodes = session["nodes"].as_array().unwrap();
        let deployed = nodes.iter().filter(|node| node["state"] == "deployed");
        if deployed.count() as u64 != quantity || nodes.len() as u64 != quantity {
            let what = format!("session {id} has not {quantity} deployed nodes: {session}");
            self.record.find(Finding::new(what).of_session(id));
        }
        self.check_keys_of(id, nodes);
    }

    /// The tenant's key, and no other, must be on all nodes of a session that it holds.
    fn check_keys(&mut self, id: i64) {
        let Some(reply) = self.call("GET", &format!("sessions/{id}"), None) else {
            return;
        };
        if reply.status == 200 {
            let session = &reply.json["session"];
            if session["active"] == false && self.record.is_held(id) {
                let what = format!("session {id} is over, and nobody has ended it");
                self.record.find(Finding::new(what).of_session(id));
            }
            self.check_keys_of(id, session["nodes"].as_array().unwrap_or(&Vec::new()));
        }
    }

    fn check_keys_of(&self, id: i64, nodes: &[Value]) {
        for node in nodes {
            let ipaddr = node["ipaddr"].as_str().unwrap_or_default();
            // It may be that no such machine exists any more.
            if let Some(keys) = self.room.tenant_keys(ipaddr)
                && keys != [self.tenant.ssh_key.clone()]
                && self.record.is_held(id)
            {
                let number = node["id"].as_i64().unwrap_or_default();
                let tenant = self.tenant.name;
                let what = format!(
                    "node {number} of session {id} at {ipaddr} has not the key of {tenant}, but {keys:?}"
                );
                self.record
                    .find(Finding::new(what).of_node(number).of_session(id));
            }
        }
    }

    /// Asks and does not wait for the answer; some come back for it.
    fn hang_up(&mut self) {
        let wanted = self.wanted();
        let body = wanted.to_string();
        let key = self.new_key();
        let with_key = self.dice.happens(40);
        let header = if with_key {
            format!("idempotency-key: {key}\r\n")
        } else {
            String::new()
        };
        let port = self.dice.pick(&self.ports);
        let credentials = STANDARD.encode(format!("{}:{}", self.tenant.name, self.tenant.api_key));
        let patience = self.dice.millis(0, 400);
        let whole = !self.dice.happens(20);
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
            .set_read_timeout(Some(patience.max(Duration::from_millis(1))))
            .ok();
        let answered = stream.read(&mut [0; 16]).is_ok_and(|read| read > 0);
        stream.shutdown(Shutdown::Both).ok();
        let name = self.tenant.name;
        self.record
            .note(&format!("{name} hung up, answered: {answered}"));
        self.record.count("hung up in a request");
        if with_key && self.dice.happens(60) {
            self.request_with_key(&wanted, &key);
        }
    }

    fn extend(&mut self) {
        let Some(id) = self.one_held() else { return };
        let by = self.dice.pick(&["+2s", "+5m", "+1h"]);
        let body = json!({ "expires_at": by });
        let held = self.record.is_held(id);
        let Some(reply) = self.call("PUT", &format!("sessions/{id}"), Some(&body)) else {
            return;
        };
        match reply.status {
            200 => {
                let expires_at = reply.json["session"]["expires_at"].as_str();
                let expires_at = expires_at.unwrap().parse().unwrap();
                self.record.set_expiry(id, expires_at);
            }
            422 if held && self.record.is_held(id) => {
                let what = format!("session {id} cannot be extended: {}", reply.text);
                self.record.find(Finding::new(what).of_session(id));
            }
            _ => {}
        }
    }

    fn one_held(&mut self) -> Option<i64> {
        (!self.held.is_empty()).then(|| self.held[self.dice.below(self.held.len())])
    }

    fn give_back(&mut self) {
        if let Some(id) = self.one_held() {
            self.check_keys(id);
            self.held.retain(|other| *other != id);
            // Sessions that end by themselves are left to it.
            if self.tenant.name != HASTY || self.dice.happens(30) {
                self.doubtful.push(id);
            }
        }
        self.retire_doubtful();
    }

    fn retire_doubtful(&mut self) {
        for id in std::mem::take(&mut self.doubtful) {
            let held = self.record.is_held(id);
            self.record.set_end(id, End::Asked);
            let body = json!({"active": false});
            let reply = self.call("PUT", &format!("sessions/{id}"), Some(&body));
            match reply.map(|reply| (reply.status, reply.json, reply.text)) {
                Some((200, json, _)) if json["session"]["active"] == false => {
                    self.record.set_end(id, End::Over);
                }
                Some((422, _, text)) => {
                    // It may have expired while the request was on its way.
                    if held && !self.record.has_expired(id) {
                        let what = format!("session {id} was over before: {text}");
                        self.record.find(Finding::new(what).of_session(id));
                    }
                    self.record.set_end(id, End::Over);
                }
                Some((200, _, text)) => {
                    let what = format!("session {id} is retired, and is not: {text}");
                    self.record.find(Finding::new(what).of_session(id));
                }
                _ => self.doubtful.push(id),
            }
        }
    }

    /// Gives sessions back whose answers were lost.
    fn tidy(&mut self) {
        let Some(reply) = self.call("GET", "sessions", None) else {
            return;
        };
        let none = Vec::new();
        let sessions = reply.json["sessions"].as_array().unwrap_or(&none);
        for id in sessions.iter().filter_map(|session| session["id"].as_i64()) {
            if !self.held.contains(&id) && !self.doubtful.contains(&id) {
                self.record.count("lost session found");
                self.doubtful.push(id);
            }
        }
        self.retire_doubtful();
    }

    fn look(&mut self) {
        let path = self
            .dice
            .pick(&["pools/cloud", "sessions", "nodes", "pools"]);
        self.call("GET", path, None);
        if let Some(id) = self.one_held() {
            self.check_keys(id);
        }
    }
}

fn brief(session: &Value) -> String {
    let nodes = session["nodes"].as_array().into_iter().flatten();
    let nodes: Vec<String> = nodes
        .map(|node| format!("{} {} {}", node["id"], node["pool"], node["ipaddr"]))
        .collect();
    format!("{} until {}", nodes.join(", "), session["expires_at"])
}
