//! Events as people, or programs, want to see them.
//!
//! On a terminal: a bar that moves, on stderr, and lines on stdout. Otherwise plain lines now and
//! then. With `--json`, every event as one line on stdout.

use crate::events::{Event, Progress};
use crate::units;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write, stderr, stdout};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a plain line tells how far it is.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Where events become visible.
pub(super) struct Face {
    json: bool,
    bar: Option<ProgressBar>,
    colour: bool,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    line: Option<Instant>,
    uploaded: Option<u64>,
    peers: Option<usize>,
}

impl Face {
    pub(super) fn new(json: bool) -> Self {
        let terminal = stderr().is_terminal() && stdout().is_terminal() && !json;
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let bar = terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr_with_hz(8));
            let template = if colour {
                "{prefix} {wide_bar:.green} {percent:>3} %  {msg}"
            } else {
                "{prefix} {wide_bar} {percent:>3} %  {msg}"
            };
            let style = ProgressStyle::with_template(template);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { json, bar, colour, last: Mutex::default() }
    }

    /// Shows one event.
    pub(super) fn tell(&self, event: &Event) {
        if self.json {
            if let Ok(line) = serde_json::to_string(event) {
                self.line(&line);
            }
            return;
        }
        match event {
            Event::Progress(progress) => self.progress(progress),
            Event::Checking { done, total } => self.working("checking", *done, *total),
            Event::Exporting { done, total } => self.working("writing", *done, *total),
            Event::Seeding { peers, up_rate, uploaded, .. } => {
                self.seeding(*peers, *up_rate, *uploaded);
            }
            Event::Error { message, hint, .. } => {
                self.clear();
                let red = if self.colour { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
                let hint = hint.as_ref().map_or_else(String::new, |hint| format!("\n  {hint}"));
                let _ = writeln!(stderr(), "{}error:{} {message}{hint}", red.0, red.1);
            }
            Event::Warning { message } => self.note(&format!("note: {message}")),
            Event::Stopped { message } => {
                self.clear();
                let _ = writeln!(stderr(), "stopped: {message}");
            }
            event => {
                if let Some(text) = text(event) {
                    self.clear();
                    self.line(&text);
                }
            }
        }
    }

    /// A line for the player that is no result.
    pub(super) fn note(&self, message: &str) {
        let write = || drop(writeln!(stderr(), "{message}"));
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.clear();
        let _ = stdout().flush();
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, text: &str) {
        let mut out = stdout().lock();
        // A reader that has gone away is no reason to stop working.
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }

    fn progress(&self, now: &Progress) {
        let speed = format!("{}/s", units::bytes(now.down_rate));
        let eta = now.eta.map_or_else(String::new, |eta| {
            format!(", {} left", units::time(Duration::from_secs_f64(eta.clamp(0.0, 1e9))))
        });
        let split = split(
            (now.peers_bytes, now.lan_bytes, now.spared_bytes),
            now.http_bytes,
            now.reused_bytes,
        );
        let upload = match now.uploaded {
            0 => String::new(),
            sent => format!(" | sent {} ({}/s)", units::bytes(sent), units::bytes(now.up_rate)),
        };
        let peers = format!("{} peers ({} with everything)", now.peers, now.seeds);
        if let Some(bar) = &self.bar {
            bar.set_length(now.total.max(1));
            bar.set_position(now.done);
            let size = format!("{} of {}", units::bytes(now.done), units::bytes(now.total));
            bar.set_prefix(size);
            bar.set_message(format!("{speed}{eta} | {peers} | {split}{upload}"));
        } else if self.is_time() {
            let percent = now.done.saturating_mul(100) / now.total.max(1);
            self.line(&format!(
                "fetching: {percent} % of {}, {speed}{eta}, {peers}; {split}; uploaded={}",
                units::bytes(now.total),
                now.uploaded
            ));
        }
    }

    fn working(&self, what: &'static str, done: u64, total: u64) {
        let percent = done.saturating_mul(100) / total.max(1);
        if let Some(bar) = &self.bar {
            bar.set_length(total.max(1));
            bar.set_position(done);
            bar.set_prefix(what);
            bar.set_message(units::bytes(total));
        } else if total > 0 && self.is_time() {
            self.line(&format!("{what}: {percent} % of {}", units::bytes(total)));
        }
    }

    fn seeding(&self, peers: usize, up_rate: u64, uploaded: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(1);
            bar.set_position(1);
            bar.set_prefix("seeding");
            let rate = units::bytes(up_rate);
            bar.set_message(format!("sent {} ({rate}/s) to {peers} peers", units::bytes(uploaded)));
            return;
        }
        let changed = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let changed = last.uploaded != Some(uploaded) || last.peers != Some(peers);
            (last.uploaded, last.peers) = (Some(uploaded), Some(peers));
            changed
        };
        if changed {
            let rate = units::bytes(up_rate);
            self.line(&format!("seeding: {peers} peers, {rate}/s, uploaded={uploaded}"));
        }
    }

    fn is_time(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.line.is_none_or(|line| line.elapsed() >= LINE_EVERY);
        if due {
            last.line = Some(Instant::now());
        }
        due
    }
}

/// One event as a line; `None` for what is shown otherwise or not at all.
fn text(event: &Event) -> Option<String> {
    Some(match event {
        Event::Recovered { version } => {
            format!("an interrupted update was finished: {version} is installed")
        }
        Event::Checked {
            product,
            channel,
            installed,
            available,
            update,
            held,
            turn,
            fresh,
            heard_from,
            ..
        } => {
            let state = match (installed, update) {
                (_, false) if *turn == "paused" => {
                    format!("{available} was stopped by its publisher")
                }
                (Some(installed), false) if *turn == "later" && installed != available => {
                    format!("{installed} is installed, {available} goes to others first")
                }
                (Some(installed), false) if *held => {
                    format!("{installed} is installed, you went back from {available}")
                }
                (Some(installed), true) => {
                    format!("{available} is available, {installed} is installed")
                }
                (Some(installed), false) => format!("{installed} is the newest"),
                (None, _) => format!("{available} is available"),
            };
            let stale = match *heard_from {
                _ if *fresh => "",
                "bundle" => " (as the bundle has it; the publisher's server was not asked)",
                "players" => {
                    " (as other players have it; the publisher's server has not confirmed it)"
                }
                _ => " (old news: no source confirms it now)",
            };
            format!("{product}, channel {channel}: {state}{stale}")
        }
        Event::Planned {
            version,
            files,
            kept_bytes,
            reused_bytes,
            found_bytes,
            fetch_bytes,
            packed_bytes,
            index_bytes,
            metadata_bytes,
            patch_bytes,
            patched_bytes,
            disk_read_bytes,
            disk_write_bytes,
            extra_space_bytes,
            free_space_bytes,
            removed_files,
        } => {
            let free = free_space_bytes
                .map_or_else(String::new, |free| format!(" of {} free", units::bytes(free)));
            let packed = match packed_bytes {
                all if all == fetch_bytes => String::new(),
                less => {
                    format!(" ({} over HTTP)", units::bytes(*less + *index_bytes + *patch_bytes))
                }
            };
            format!(
                "{version}: {}; {} to fetch{packed} and {} of documents, {} stay, {} moved or copied, {} found in \
                 old files, {} made by a patch, {} removed; disk: {} read, {} written, {}{free} \
                 needed meanwhile",
                units::files(*files),
                units::bytes(*fetch_bytes + *index_bytes + *patch_bytes),
                units::bytes(*metadata_bytes),
                units::bytes(*kept_bytes),
                units::bytes(*reused_bytes),
                units::bytes(*found_bytes),
                units::bytes(*patched_bytes),
                units::files(*removed_files),
                units::bytes(*disk_read_bytes),
                units::bytes(*disk_write_bytes),
                units::bytes(*extra_space_bytes)
            )
        }
        Event::PlannedFile { path, way, bytes, fetch_bytes } => {
            let fetched = match fetch_bytes {
                0 => String::new(),
                some => format!(", {} to fetch", units::bytes(*some)),
            };
            format!("{way:>6}: {path} ({}{fetched})", units::bytes(*bytes))
        }
        Event::Hosting { page, url, feed } => format!(
            "the room is open: {page} shows who is there\nguests without the game: {feed}\n\
             files for any program: {url}"
        ),
        Event::Listening { addresses } => format!("listening on {}", addresses.join(", ")),
        Event::Found { name, files, bytes } => {
            format!("the link leads to {name}: {files} files, {}", units::bytes(*bytes))
        }
        Event::Exported { version, dir, files, bytes, written_bytes } => format!(
            "exported: {version}, {} ({}, {} of them new) in {}",
            units::files(*files),
            units::bytes(*bytes),
            units::bytes(*written_bytes),
            dir.display()
        ),
        Event::Committing { version } => format!("switching to {version}"),
        Event::Aside { path, to } => format!("your file {path} was in the way: it is {to} now"),
        Event::Bounded { version, batches, extra_space_bytes } => format!(
            "the disk has no room for all of {version} beside the old files: they are replaced in \
             {batches} batches, {} needed meanwhile; until the last is done the game cannot be played \
             and there is no way back",
            units::bytes(*extra_space_bytes)
        ),
        Event::Revoked { version, kept } => {
            let back = kept.as_ref().map_or_else(String::new, |kept| {
                format!(", or go back to {kept} at once with `rollback`")
            });
            format!(
                "{version}, which is installed, was revoked by its publisher: update as soon as there is \
                 another release{back}"
            )
        }
        Event::Launcher { own, available, state, .. } => match *state {
            "available" => format!("there is a newer launcher: {available} (this is {own})"),
            "waiting" => format!("the launcher {available} is here and is started the next time"),
            "failed" => format!("the launcher {available} did not come up here; this is {own}"),
            _ => format!("the launcher is the newest ({own})"),
        },
        Event::LauncherUpdated { version, .. } => {
            format!("the launcher {version} is here and is started the next time")
        }
        Event::Held { version } => format!(
            "updates up to {version} are held back: `update --force` brings it in again, a newer one \
             comes as usual"
        ),
        Event::FirstReady => "the files that come first are there".to_owned(),
        Event::ServingAhead { version, bytes } => format!(
            "{} of the newer {version} are here already and are shared; `update` brings in the rest",
            units::bytes(*bytes)
        ),
        Event::Preloading { version } => {
            format!("{version} is announced for later and fetched ahead")
        }
        Event::Preloaded { version } => format!(
            "{version} is here ahead, all of it verified: `update` switches to it once it is released"
        ),
        Event::UpToDate { message } => format!("nothing to do: {message}"),
        Event::Complete {
            version,
            seconds,
            peers_bytes,
            spared_bytes,
            lan_bytes,
            http_bytes,
            reused_bytes,
            uploaded,
            ..
        } => format!(
            "complete: {version} in {} — {}; uploaded={uploaded}",
            units::time(Duration::from_secs_f64(seconds.max(0.0))),
            split((*peers_bytes, *lan_bytes, *spared_bytes), *http_bytes, *reused_bytes)
        ),
        Event::Damaged { path, missing, bytes } => {
            let what = if *missing { "missing" } else { "damaged" };
            format!("{what}: {path} ({})", units::bytes(*bytes))
        }
        Event::Verified { version, files, bytes, damaged, changed } => {
            let changed = match changed {
                0 => String::new(),
                some => format!(", {some} changed by you, as they may be"),
            };
            format!(
                "verified: {version}, {}, {}; {damaged} damaged or missing{changed}",
                units::files(*files),
                units::bytes(*bytes)
            )
        }
        Event::Component { name, installed, files, bytes, .. } => {
            let state = if *installed { "installed" } else { "not installed" };
            format!("{name}: {state}, {}, {}", units::files(*files), units::bytes(*bytes))
        }
        Event::Status {
            dir,
            product,
            channel,
            version,
            sequence,
            files,
            bytes,
            changed,
            pending,
            ahead,
            kept,
            held,
            upload,
            uploaded_lan_bytes,
            uploaded_internet_bytes,
            busy,
        } => {
            let installed = match (version, sequence) {
                (Some(version), Some(sequence)) => {
                    format!(
                        "{version} (number {sequence}), {}, {}",
                        units::files(*files),
                        units::bytes(*bytes)
                    )
                }
                _ => "nothing yet".into(),
            };
            let mut lines = vec![
                format!("product    {product}, channel {channel}"),
                format!("folder     {}", dir.display()),
                format!("installed  {installed}"),
            ];
            if *changed > 0 {
                lines.push(format!("changed    {} since installed", units::files(*changed)));
            }
            if let Some(kept) = kept {
                lines.push(format!("kept       {kept}: rollback goes back to it"));
            }
            if let Some(held) = held {
                lines.push(format!("held back  updates up to number {held}, since you went back"));
            }
            if let Some(pending) = pending {
                lines.push(format!("unfinished {pending}: run update to go on"));
            }
            if let Some(ahead) = ahead {
                lines.push(format!(
                    "announced  {ahead}: fetched ahead, installed once it is released"
                ));
            }
            let upload = match upload.as_str() {
                "everyone" => "to everyone",
                "lan" => "to your own network only",
                _ => "to your own network only, until you decide (--upload yes|no)",
            };
            lines.push(format!("upload     {upload}"));
            lines.push(format!(
                "uploaded   {} to your own network, {} to the internet",
                units::bytes(*uploaded_lan_bytes),
                units::bytes(*uploaded_internet_bytes)
            ));
            if *busy {
                lines.push("busy       another launcher is at work here".into());
            }
            lines.join("\n")
        }
        Event::Config { settings } => {
            let yes = |value| if value { "yes" } else { "no" };
            let rate = |limit: Option<u64>| {
                limit
                    .map_or_else(|| "none".to_owned(), |limit| format!("{}/s", units::bytes(limit)))
            };
            let name = settings.name.clone().map_or_else(|| "none".to_owned(), String::from);
            format!(
                "upload      {} (to the internet)\nlan         {}\nup-limit    {}\ndown-limit  {}\n\
                 on-battery  {} (upload then)\nmetered     {} (nothing to the internet then)\nname        {name}",
                settings.upload.map_or("ask", yes),
                yes(settings.lan),
                rate(settings.up_limit),
                rate(settings.down_limit),
                yes(settings.on_battery),
                yes(settings.metered),
            )
        }
        Event::Running { version, program } => format!("{version} runs ({program})"),
        Event::Neighbour { address, name, installed, newest, signed, news, .. } => {
            let installed = installed.as_deref().unwrap_or("nothing yet");
            let knows = match (newest, signed) {
                (Some(newest), Some(signed)) => {
                    let expired = if *news == "expired" { ", expired" } else { "" };
                    format!("knows of {newest} (signed {signed}{expired})")
                }
                (None, Some(_)) => "knows of no release for this channel and platform".to_owned(),
                (_, None) => format!("news: {news}"),
            };
            let name = name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
            format!("{address}{name}: has {installed}; {knows}")
        }
        Event::Neighbours { product, count } => match count {
            0 => format!("{product}: nobody else was found on this network"),
            1 => format!("{product}: one other launcher is here"),
            more => format!("{product}: {more} other launchers are here"),
        },
        Event::Progress(_)
        | Event::Checking { .. }
        | Event::Exporting { .. }
        | Event::Uploading { .. }
        | Event::Seeding { .. }
        | Event::Warning { .. }
        | Event::Stopped { .. }
        | Event::Error { .. } => return None,
    })
}

fn split((peers, lan, spared): (u64, u64, u64), http: u64, reused: u64) -> String {
    let lan = if lan > 0 { format!(" ({} LAN)", units::bytes(lan)) } else { String::new() };
    let spared = match spared {
        0 => String::new(),
        spared => format!(" (compressed to {})", units::bytes(peers.saturating_sub(spared))),
    };
    format!(
        "peers {}{lan}{spared}, http {}, reused {}",
        units::bytes(peers),
        units::bytes(http),
        units::bytes(reused)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Benchmarks and scripts wait for the word: it stands in the last line and nowhere before.
    #[test]
    fn complete_is_said_once() {
        let progress = split((1, 1, 1), 1, 1);
        assert!(!progress.contains("complete"));
        let event = Event::Complete {
            version: "1.0.1".into(),
            seconds: 3.2,
            peers_bytes: 120 << 20,
            lan_bytes: 0,
            spared_bytes: 80 << 20,
            http_bytes: 0,
            reused_bytes: 55 << 20,
            wasted_bytes: 0,
            uploaded: 7,
        };
        assert_eq!(
            text(&event).unwrap(),
            "complete: 1.0.1 in 3.2 s — peers 120.0 MiB (compressed to 40.0 MiB), http 0 B, \
             reused 55.0 MiB; uploaded=7"
        );
        let planned = Event::Planned {
            version: "1".into(),
            files: 1,
            kept_bytes: 1,
            reused_bytes: 1,
            found_bytes: 1,
            fetch_bytes: 1,
            packed_bytes: 1,
            index_bytes: 1,
            metadata_bytes: 1,
            patch_bytes: 1,
            patched_bytes: 1,
            disk_read_bytes: 1,
            disk_write_bytes: 1,
            extra_space_bytes: 1,
            free_space_bytes: Some(1),
            removed_files: 1,
        };
        assert!(!text(&planned).unwrap().contains("complete"));
    }
}
