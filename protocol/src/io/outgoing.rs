//! Where HTTP requests may be led to by those who answer them.
//!
//! Whoever answers may send us on. Never from https down to http; and from a server on the internet never into the
//! network that we are in: to this machine, the router or a printer, which trust whoever is near. A repository that
//! is near itself may send us on to others that are.
//!
//! An address in a URL is seen at once. A name is looked up first, so the client's resolver leaves out near
//! addresses of names that somebody far away has sent us to.

use crate::policy::locality::is_lan;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{ClientBuilder, redirect};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use url::{Host, Url};

/// Redirects followed for one request.
const REDIRECTS_MAX: usize = 5;
/// Names remembered.
const NAMES_MAX: usize = 1024;

/// The client follows no redirect that leads from https to http, or from afar to what is near. It tells no server
/// which page it comes from.
pub fn guard(builder: ClientBuilder) -> ClientBuilder {
    let names = Names::default();
    let policy = names.clone();
    let redirects = redirect::Policy::custom(move |attempt| {
        match policy.refusal(attempt.previous(), attempt.url()) {
            Some(why) => attempt.error(why),
            None => attempt.follow(),
        }
    });
    builder.referer(false).redirect(redirects).dns_resolver(Arc::new(names))
}

/// What is known of hosts by their names.
#[derive(Clone, Debug, Default)]
struct Names(Arc<Mutex<HashMap<String, Known>>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Asked on our own account; it has near addresses only.
    Near,
    /// Somebody far away has sent us there.
    SentTo,
}

impl Names {
    /// Why `next` is not asked, where the URLs of `before` led to it.
    fn refusal(&self, before: &[Url], next: &Url) -> Option<&'static str> {
        if before.len() > REDIRECTS_MAX {
            return Some("sent on too many times");
        }
        if !matches!(next.scheme(), "http" | "https") {
            return Some("sent on to what is neither http nor https");
        }
        if next.scheme() != "https" && before.iter().any(|url| url.scheme() == "https") {
            return Some("sent on from https to http");
        }
        if before.iter().all(|url| self.is_near(url)) {
            return None;
        }
        let near = "sent on into the local network by a server beyond it";
        match next.host()? {
            Host::Domain(name) => {
                let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let name = name.to_ascii_lowercase();
                if known.get(&name) == Some(&Known::Near) {
                    return Some(near);
                }
                if known.len() >= NAMES_MAX {
                    return Some("sent on to too many servers");
                }
                known.insert(name, Known::SentTo);
                None
            }
            Host::Ipv4(ip) => is_near(ip.into()).then_some(near),
            Host::Ipv6(ip) => is_near(ip.into()).then_some(near),
        }
    }

    fn is_near(&self, url: &Url) -> bool {
        match url.host() {
            Some(Host::Domain(name)) => {
                let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                known.get(&name.to_ascii_lowercase()) == Some(&Known::Near)
            }
            Some(Host::Ipv4(ip)) => is_near(ip.into()),
            Some(Host::Ipv6(ip)) => is_near(ip.into()),
            None => false,
        }
    }

    /// The addresses of `name` that may be asked.
    fn usable(&self, name: &str, found: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all_near = found.iter().all(|addr| is_near(addr.ip()));
        match known.get(name) {
            Some(Known::SentTo) => {
                let far: Vec<_> = found.into_iter().filter(|addr| !is_near(addr.ip())).collect();
                if far.is_empty() {
                    let why = "a server beyond the local network sent us on to a host in it";
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
                }
                Ok(far)
            }
            Some(Known::Near) | None => {
                if all_near && known.len() < NAMES_MAX {
                    known.insert(name.to_owned(), Known::Near);
                } else if !all_near {
                    known.remove(name);
                }
                Ok(found)
            }
        }
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let usable = names.usable(&name.as_str().to_ascii_lowercase(), found)?;
            Ok(Box::new(usable.into_iter()) as Addrs)
        })
    }
}

/// True for addresses that mean something else to everybody: this machine, its links, networks that are private or
/// shared behind one address (RFC 6598).
fn is_near(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let shared = match ip {
        IpAddr::V4(ip) => {
            ip.is_broadcast() || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64)
        }
        IpAddr::V6(_) => false,
    };
    is_lan(ip) || ip.is_unspecified() || ip.is_multicast() || shared
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn where_we_let_ourselves_be_sent() {
        let names = Names::default();
        let near = vec![SocketAddr::from(([192, 168, 0, 9], 0))];
        names.usable("nas.example", near.clone()).unwrap();
        let check = |before: &str, next: &str, refused: bool| {
            let before: Vec<Url> = before.split(' ').map(url).collect();
            let why = names.refusal(&before, &url(next));
            assert_eq!(why.is_some(), refused, "{before:?} {next}: {why:?}");
        };
        check("https://a.example/", "https://b.example/", false);
        check("http://a.example/", "https://b.example/", false);
        check("https://a.example/", "http://a.example/", true);
        check("https://a.example/ https://b.example/", "ftp://a.example/", true);
        check("http://a.example/", "http://203.0.113.5/", false);
        for near in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "2130706433",
            "[::1]",
            "[::]",
            "[fe80::1]",
            "[fd00::1]",
            "[::ffff:127.0.0.1]",
            "nas.example",
            "NAS.example",
        ] {
            check("http://a.example/", &format!("http://{near}/"), true);
            check("http://203.0.113.5/", &format!("http://{near}:8080/setup?reset=1"), true);
            // A repository that is near itself may.
            check("http://192.168.0.2/", &format!("http://{near}/"), false);
            check("http://nas.example/", &format!("http://{near}/"), false);
            check("http://192.168.0.2/ http://a.example/", &format!("http://{near}/"), true);
        }
        // A name that leads into the network is found out when it is looked up.
        check("http://a.example/", "http://trap.example/", false);
        assert!(names.usable("trap.example", near.clone()).is_err());
        let far = SocketAddr::from(([203, 0, 113, 5], 0));
        assert_eq!(names.usable("trap.example", vec![near[0], far]).unwrap(), [far]);
        let long = "http://a.example/ ".repeat(REDIRECTS_MAX + 1);
        check(long.trim_end(), "http://a.example/", true);
    }

    /// Sends whoever asks for `/to?URL` on to that URL, and tells others what they sent.
    async fn server() -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap_or(b'\n'));
                }
                let text = String::from_utf8(request).unwrap();
                let path = text.split(' ').nth(1).unwrap();
                let answer = match path.strip_prefix("/to?") {
                    Some(next) => {
                        format!("302 Found\r\nLocation: {next}\r\nContent-Length: 0\r\n\r\n")
                    }
                    None => format!("200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()),
                };
                let answer =
                    format!("HTTP/1.1 {}", answer.replacen("\r\n", "\r\nConnection: close\r\n", 1));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        addr
    }

    #[tokio::test]
    async fn a_server_far_away_reaches_nothing_near_and_learns_no_secrets() {
        let addr = server().await;
        let port = addr.port();
        // The names are of servers on the internet, as far as we know.
        let client = guard(reqwest::Client::builder())
            .resolve("far.example", addr)
            .resolve("other.example", addr)
            .no_proxy()
            .build()
            .unwrap();
        let get = |url: String| {
            let request = client.get(url).send();
            async { request.await?.text().await }
        };
        for near in ["127.0.0.1", "[::1]", "localhost"] {
            let error = get(format!("http://far.example:{port}/to?http://{near}:{port}/")).await;
            let error = error.unwrap_err();
            let text = crate::io::webseed::causes(&error);
            assert!(text.contains("local network"), "{near}: {text}");
        }
        let text =
            get(format!("http://me:secret@far.example:{port}/to?http://other.example:{port}/"))
                .await;
        let text = text.unwrap().to_ascii_lowercase();
        assert!(text.contains("host: other.example") && !text.contains("authorization"), "{text}");
        assert!(!text.contains("referer"), "{text}");
        let text =
            get(format!("http://127.0.0.1:{port}/to?http://127.0.0.1:{port}/here")).await.unwrap();
        assert!(text.starts_with("GET /here"), "{text}");
    }
}
