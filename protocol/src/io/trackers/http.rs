//! Asking an HTTP tracker.

use crate::io::webseed::causes;
use crate::wire::tracker::{AnnounceReply, BODY_BYTES_MAX, ReplyError};
use std::time::Duration;
use tokio::time::timeout;
use url::Url;

/// The longest one announce takes.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(20);

/// One request and its answer, or in words why there is none.
pub(super) async fn ask(client: &reqwest::Client, url: Url) -> Result<AnnounceReply, String> {
    let answer = timeout(ANNOUNCE_TIMEOUT, get(client, url)).await;
    let (status, body) =
        answer.map_err(|_| format!("no answer within {} s", ANNOUNCE_TIMEOUT.as_secs()))??;
    match AnnounceReply::parse(&body) {
        // Some trackers refuse in bencode and with an error status: their words say more.
        Ok(_) | Err(ReplyError::Bencode(_) | ReplyError::Shape { .. }) if !status.is_success() => {
            Err(format!("HTTP {}", status.as_u16()))
        }
        Ok(answer) => Ok(answer),
        Err(error) => Err(error.to_string()),
    }
}

async fn get(client: &reqwest::Client, url: Url) -> Result<(reqwest::StatusCode, Vec<u8>), String> {
    let mut response = client.get(url).send().await.map_err(|error| causes(&error))?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| causes(&error))? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(ReplyError::TooLarge.to_string());
        }
        body.extend_from_slice(&chunk);
    }
    Ok((response.status(), body))
}
