//! The page on the organiser's screen: who is in the room, with a row for each machine.
//!
//! [`Board`] is told now and then what the engine and the room know of others, and keeps a row for each address: how
//! far it is by what it says it has, and how fast that grows. [`answer`] serves the page and its numbers. What others
//! call themselves is data in JSON, put into the page as text.

use crate::files::plain;
use axum::body::Body;
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Machines shown at most; those that went longest ago make place.
const MACHINES_MAX: usize = 512;
/// Who was not seen for so long has gone.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// Speed is what came in about this time.
const RATE_OVER: Duration = Duration::from_secs(3);
/// Characters of a name that are shown.
const NAME_CHARS_MAX: usize = 48;

const PAGE: &str = include_str!("room.html");
/// Where the page is.
pub const PAGE_PATH: &str = "/room";
/// Where its numbers are.
pub const NUMBERS_PATH: &str = "/room.json";

/// What is known of one machine now, by one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its address.
    pub ip: IpAddr,
    /// What its player calls it; shown as text, without control characters.
    pub name: Option<String>,
    /// The release that it says is installed there.
    pub installed: Option<String>,
    /// Bytes that it says it has of a release that is shared, and bytes of that, if it fetches or shares one.
    pub have: Option<(u64, u64)>,
}

/// What is shared, and what went out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Shared {
    /// The product.
    pub product: String,
    /// The releases.
    pub versions: Vec<String>,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes sent to others over BitTorrent.
    pub sent_bytes: u64,
    /// The same now, per second.
    pub sent_rate: u64,
    /// Bytes of content sent over HTTP.
    pub http_bytes: u64,
}

/// Everybody who was seen.
#[derive(Debug, Default)]
pub struct Board {
    shared: Shared,
    machines: BTreeMap<IpAddr, Machine>,
}

#[derive(Debug)]
struct Machine {
    name: Option<String>,
    installed: Option<String>,
    have: Option<(u64, u64)>,
    seen: Instant,
    /// What it had when, for its speed.
    mark: (Instant, u64),
    rate: u64,
}

/// A row.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row<'a> {
    address: String,
    name: Option<&'a str>,
    installed: Option<&'a str>,
    /// `waiting` for what it is told to do, `fetching`, `done`, or `gone`.
    state: &'static str,
    have_bytes: u64,
    of_bytes: u64,
    rate: u64,
}

#[derive(Serialize)]
struct Numbers<'a> {
    #[serde(flatten)]
    shared: &'a Shared,
    machines: Vec<Row<'a>>,
}

impl Board {
    /// Takes in what is shared and everybody who is there now. The same machine may be seen several times.
    pub fn update(&mut self, now: Instant, shared: Shared, seen: impl IntoIterator<Item = Seen>) {
        self.shared = shared;
        for Seen { ip, name, installed, have } in seen {
            let ip = ip.to_canonical();
            if !self.machines.contains_key(&ip) && self.machines.len() >= MACHINES_MAX {
                let longest = self.machines.iter().min_by_key(|(_, machine)| machine.seen);
                let Some(longest) = longest.map(|(ip, _)| *ip) else { continue };
                self.machines.remove(&longest);
            }
            let machine = self.machines.entry(ip).or_insert(Machine {
                name: None,
                installed: None,
                have: None,
                seen: now,
                mark: (now, have.map_or(0, |(have, _)| have)),
                rate: 0,
            });
            machine.seen = now;
            machine.name = name.map(|name| printable(&name)).or(machine.name.take());
            machine.installed = installed.map(|text| printable(&text)).or(machine.installed.take());
            if let Some((have, of)) = have {
                machine.take(now, have.min(of), of);
            }
        }
    }

    /// What the page shows, as JSON.
    fn numbers(&self, now: Instant) -> Vec<u8> {
        let machines = self.machines.iter().map(|(ip, machine)| self.row(now, *ip, machine));
        let numbers = Numbers { shared: &self.shared, machines: machines.collect() };
        serde_json::to_vec(&numbers).unwrap_or_default()
    }

    fn row<'a>(&self, now: Instant, ip: IpAddr, machine: &'a Machine) -> Row<'a> {
        let installed = machine.installed.as_deref();
        let done = installed.is_some_and(|it| self.shared.versions.iter().any(|one| one == it))
            || machine.have.is_some_and(|(have, of)| have == of);
        let gone = now.saturating_duration_since(machine.seen) > GONE_AFTER;
        let state = match (done, gone, machine.have) {
            (true, _, _) => "done",
            (false, true, _) => "gone",
            (false, false, Some(_)) => "fetching",
            (false, false, None) => "waiting",
        };
        let (have, of) = machine.have.unwrap_or((0, 0));
        Row {
            address: ip.to_string(),
            name: machine.name.as_deref(),
            installed: machine.installed.as_deref(),
            state,
            have_bytes: if done { of } else { have },
            of_bytes: of,
            rate: if state == "fetching" { machine.rate } else { 0 },
        }
    }
}

impl Machine {
    fn take(&mut self, now: Instant, have: u64, of: u64) {
        self.have = Some((have, of));
        let (since, before) = self.mark;
        let passed = now.saturating_duration_since(since);
        if passed >= RATE_OVER {
            let gained = u128::from(have.saturating_sub(before)) * 1000;
            self.rate = u64::try_from(gained / passed.as_millis()).unwrap_or(u64::MAX);
            self.mark = (now, have);
        }
    }
}

/// A name as one short line that stays in its row: marks that turn the direction of writing would not.
fn printable(text: &str) -> String {
    let turns = |char| matches!(char, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = text.chars().filter(|char| !char.is_control() && !turns(*char));
    shown.take(NAME_CHARS_MAX).collect()
}

/// The answer to a request for the page or its numbers; `None` for any other path.
pub fn answer(board: &Board, now: Instant, method: &Method, path: &str) -> Option<Response<Body>> {
    let (kind, body) = match path {
        PAGE_PATH => ("text/html; charset=utf-8", PAGE.into()),
        NUMBERS_PATH => ("application/json", board.numbers(now)),
        _ => return None,
    };
    if method != Method::GET && method != Method::HEAD {
        return Some(plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are answered here\n",
        ));
    }
    let mut response = Response::new(Body::from(body));
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Everything the page needs is in it but its numbers.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
             connect-src 'self'; base-uri 'none'; form-action 'none'",
        ),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn shared() -> Shared {
        let (product, versions) = ("game".to_owned(), vec!["2.0".to_owned()]);
        Shared { product, versions, bytes: 100 * MIB, ..Shared::default() }
    }

    fn seen(ip: &str, installed: Option<&str>, have: Option<u64>) -> Seen {
        let (ip, have) = (ip.parse().unwrap(), have.map(|have| (have, 100 * MIB)));
        Seen { ip, name: None, installed: installed.map(str::to_owned), have }
    }

    /// Address, state, bytes and speed of every row.
    fn check(board: &Board, now: Instant, expected: &[(&str, &str, u64, u64)]) {
        let rows = board.machines.iter().map(|(ip, machine)| board.row(now, *ip, machine));
        let rows: Vec<_> =
            rows.map(|row| (row.address, row.state, row.have_bytes, row.rate)).collect();
        let rows: Vec<_> = rows.iter().map(|row| (row.0.as_str(), row.1, row.2, row.3)).collect();
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_machine_has_one_row_from_its_coming_to_its_end() {
        let (mut board, start) = (Board::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        board.update(at(0), shared(), [seen("10.0.0.2", Some("1.0"), None)]);
        check(&board, at(0), &[("10.0.0.2", "waiting", 0, 0)]);
        // Met at the rendezvous and in the swarm, there by a mapped address.
        let both =
            |have| [seen("10.0.0.2", Some("1.0"), None), seen("::ffff:10.0.0.2", None, Some(have))];
        board.update(at(1), shared(), both(MIB));
        board.update(at(4), shared(), both(31 * MIB));
        check(&board, at(4), &[("10.0.0.2", "fetching", 31 * MIB, 31 * MIB / 4)]);
        board.update(at(8), shared(), both(31 * MIB));
        check(&board, at(8), &[("10.0.0.2", "fetching", 31 * MIB, 0)]);
        check(&board, at(30), &[("10.0.0.2", "gone", 31 * MIB, 0)]);
        // It came by the patch: what it says it has installed is what counts.
        board.update(at(31), shared(), [seen("10.0.0.2", Some("2.0"), None)]);
        check(&board, at(99), &[("10.0.0.2", "done", 100 * MIB, 0)]);
    }

    #[test]
    fn what_others_say_is_bounded_and_harmless() {
        let (mut board, now) = (Board::default(), Instant::now());
        let name = format!("</script><b>\u{1b}[2J\n\u{202e}{}", "x".repeat(1000));
        let hostile = Seen { name: Some(name), ..seen("10.0.0.2", None, Some(u64::MAX)) };
        board.update(now, shared(), [hostile]);
        let machine = &board.machines[&"10.0.0.2".parse::<IpAddr>().unwrap()];
        let name = machine.name.as_deref().unwrap();
        assert_eq!(name.chars().count(), NAME_CHARS_MAX);
        assert!(!name.contains(['\u{1b}', '\n', '\u{202e}']), "{name:?}");
        assert_eq!(machine.have, Some((100 * MIB, 100 * MIB)));
        // As data it may say anything; as JSON it is one string.
        let numbers: serde_json::Value = serde_json::from_slice(&board.numbers(now)).unwrap();
        assert_eq!(numbers["machines"][0]["name"], name);
        let many = (0..2000u32).map(|number| Seen {
            ip: std::net::Ipv4Addr::from(0x0a00_0000 + number).into(),
            name: None,
            installed: None,
            have: None,
        });
        board.update(now, shared(), many);
        assert_eq!(board.machines.len(), MACHINES_MAX);
    }

    #[test]
    fn the_page_puts_nothing_into_the_page_but_text() {
        for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!PAGE.contains(way), "{way}");
        }
        let board = Board::default();
        let get = |path| answer(&board, Instant::now(), &Method::GET, path);
        assert_eq!(get(PAGE_PATH).unwrap().status(), 200);
        assert!(get(NUMBERS_PATH).unwrap().headers().contains_key("content-security-policy"));
        assert!(get("/head.toml").is_none());
        let post = answer(&board, Instant::now(), &Method::POST, PAGE_PATH);
        assert_eq!(post.unwrap().status(), 405);
    }
}
