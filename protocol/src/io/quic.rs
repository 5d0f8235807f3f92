//! QUIC (RFC 9000) between our own peers: the peer wire protocol over the one bidirectional stream of a
//! connection.
//!
//! Certificates are made at the start and belong to nobody: what arrives is verified by the torrent, so
//! the handshake only keeps others from reading along. Everything a stranger can make us keep is bounded:
//! handshakes under way, streams, windows.

mod congestion;
#[cfg(test)]
mod tests;

use super::connection::{self, NetEvent};
use super::datagrams::Port;
use super::engine::Command;
use super::lsd;
use super::stream::{Stream, canonical};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Endpoint, EndpointConfig, IdleTimeout, TransportConfig, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

/// What both ends must offer (ALPN).
const PROTOCOL: &[u8] = b"updraft/1";
/// The name that certificates are for: it is asked for and says nothing.
const NAME: &str = "peer.updraft";
/// Handshakes of strangers under way at once.
const HANDSHAKES_MAX: usize = 64;
/// Of these, so many without the stranger having shown that it gets what is sent to its address.
const UNPROVEN_MAX: usize = 16;
/// Time for the handshake, and for the stream to be opened.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// What may be under way to us on one connection, in bytes: 100 Mbit/s at a third of a second.
const RECEIVE_WINDOW: u32 = 4 << 20;
/// What waits of a handshake that nobody has looked at, in bytes.
const INCOMING_BYTES: u64 = 16 * 1024;
/// Routers forget a UDP flow after half a minute of silence.
const KEEP_ALIVE: Duration = Duration::from_secs(25);
const IDLE: Duration = Duration::from_secs(90);

/// The QUIC endpoints of a session. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Quic {
    endpoints: Arc<[Endpoint]>,
    local_only: bool,
}

impl Quic {
    /// Opens QUIC at `ports`, on the runtime this is called on. With `yields`, what is sent makes way
    /// for other traffic; with `local_only` nobody beyond the links is answered.
    pub(super) fn open(ports: Vec<Arc<Port>>, yields: bool, local_only: bool) -> io::Result<Self> {
        let transport = Arc::new(transport(yields)?);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (certificate, key) = certificate()?;
        let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key.into())
            .map_err(io::Error::other)?;
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        let server = QuicServerConfig::try_from(server).map_err(io::Error::other)?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
        server
            .transport_config(Arc::clone(&transport))
            // Limits, bans and what counts as the LAN go by the address that a peer came from.
            .migration(false)
            .max_incoming(HANDSHAKES_MAX)
            .incoming_buffer_size(INCOMING_BYTES)
            .incoming_buffer_size_total(INCOMING_BYTES * HANDSHAKES_MAX as u64);

        let mut client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody::new(&provider)))
            .with_no_client_auth();
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        let client = QuicClientConfig::try_from(client).map_err(io::Error::other)?;
        let mut client = quinn::ClientConfig::new(Arc::new(client));
        client.transport_config(transport);

        let endpoint = |port: Arc<Port>| {
            let runtime = Arc::new(quinn::TokioRuntime);
            let mut config = EndpointConfig::default();
            // The port tells QUIC from uTP by that bit.
            config.grease_quic_bit(false);
            let server = Some(server.clone());
            let mut endpoint = Endpoint::new_with_abstract_socket(config, server, port, runtime)?;
            endpoint.set_default_client_config(client.clone());
            Ok(endpoint)
        };
        let endpoints = ports.into_iter().map(endpoint).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { endpoints: endpoints.into(), local_only })
    }

    /// The port others reach us at.
    pub(super) fn port(&self) -> Option<u16> {
        self.endpoints.first()?.local_addr().ok().map(|addr| addr.port())
    }

    /// Dials.
    pub(super) async fn connect(&self, addr: SocketAddr) -> io::Result<Stream> {
        let fits = |endpoint: &&Endpoint| {
            endpoint.local_addr().is_ok_and(|local| local.is_ipv4() == addr.is_ipv4())
        };
        let endpoint = self.endpoints.iter().find(fits);
        let endpoint = endpoint.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let connection = endpoint.connect(addr, NAME).map_err(io::Error::other)?.await?;
        let (send, receive) = connection.open_bi().await?;
        Ok(Stream::Quic(connection, send, receive))
    }

    /// Takes in those who dial us, until the session is gone.
    pub(super) fn accept(
        &self,
        events: &mpsc::Sender<NetEvent>,
        alive: &mpsc::WeakSender<Command>,
    ) {
        for endpoint in self.endpoints.iter() {
            tokio::spawn(accept_all(
                endpoint.clone(),
                self.local_only,
                events.clone(),
                alive.clone(),
            ));
        }
    }

    /// Closes every connection.
    pub(super) fn close(&self) {
        self.endpoints.iter().for_each(|endpoint| endpoint.close(VarInt::from_u32(0), b""));
    }
}

async fn accept_all(
    endpoint: Endpoint,
    local_only: bool,
    events: mpsc::Sender<NetEvent>,
    alive: mpsc::WeakSender<Command>,
) {
    let room = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = events.closed() => return,
        };
        let Some(incoming) = incoming else { return };
        if alive.upgrade().is_none() {
            return;
        }
        if local_only && !lsd::is_on_link(canonical(incoming.remote_address()).ip()) {
            incoming.ignore();
            continue;
        }
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            incoming.ignore();
            continue;
        };
        let under_way = HANDSHAKES_MAX - room.available_permits();
        if under_way > UNPROVEN_MAX && !incoming.remote_address_validated() {
            // The answer is no longer than the question.
            let _ = incoming.retry();
            continue;
        }
        let events = events.clone();
        tokio::spawn(async move {
            let addr = canonical(incoming.remote_address());
            let stream = async {
                let connection = incoming.accept()?.await?;
                let (send, receive) = connection.accept_bi().await?;
                Ok::<_, quinn::ConnectionError>(Stream::Quic(connection, send, receive))
            };
            match timeout(HANDSHAKE_TIMEOUT, stream).await {
                Ok(Ok(stream)) => connection::accept(stream, addr, events).await,
                Ok(Err(error)) => tracing::debug!(%addr, %error, "refused a QUIC connection"),
                Err(_) => tracing::debug!(%addr, "no QUIC connection in time"),
            }
            drop(permit);
        });
    }
}

fn transport(yields: bool) -> io::Result<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE).map_err(io::Error::other)?))
        .keep_alive_interval(Some(KEEP_ALIVE));
    if yields {
        transport.congestion_controller_factory(Arc::new(congestion::Yielding::default()));
    }
    Ok(transport)
}

fn certificate() -> io::Result<(CertificateDer<'static>, PrivatePkcs8KeyDer<'static>)> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).map_err(io::Error::other)?;
    Ok((made.cert.der().clone(), PrivatePkcs8KeyDer::from(made.signing_key.serialize_der())))
}

/// Takes any certificate, if its owner signs with it.
#[derive(Debug)]
struct Anybody {
    algorithms: WebPkiSupportedAlgorithms,
}

impl Anybody {
    fn new(provider: &CryptoProvider) -> Self {
        Self { algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
