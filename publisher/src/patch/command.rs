//! The toolbox for single patches: `patch create|show|apply`. It knows nothing of repositories.

use super::apply::open;
use super::folder::{Folder, make_folder};
use super::make::{Options, make};
use crate::Error;
use crate::output::{Output, bytes};
use crate::torrent::create::parse_bytes;
use serde_json::json;
use std::path::PathBuf;
use updraft_manifests::patch::{MEMORY_MAX, VERSION};

/// What to do with a patch.
#[derive(Debug, clap::Subcommand)]
pub enum PatchCommand {
    /// Make the patch from one folder to another
    Create(CreateArgs),
    /// Show what a patch says
    Show(ShowArgs),
    /// Make the new folder of the old one and a patch
    Apply(ApplyArgs),
}

/// `patch create OLD NEW -o FILE`
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// The folder to start from
    pub old: PathBuf,
    /// The folder to lead to
    pub new: PathBuf,
    /// Where to write the patch
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Memory to keep to, such as 500MiB; half of the machine's if left out
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub memory: Option<u64>,
}

/// `patch show FILE`
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The patch file
    pub file: PathBuf,
}

/// `patch apply OLD FILE -o DIR`
#[derive(Debug, clap::Args)]
pub struct ApplyArgs {
    /// The folder to start from; it is only read
    pub old: PathBuf,
    /// The patch file
    pub file: PathBuf,
    /// The folder to make
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

/// Runs one of the commands. Blocks, and takes all cores.
///
/// # Errors
/// As the command's; [`Error::Content`] for a patch that is refused.
pub fn run(command: &PatchCommand, output: Output) -> Result<(), Error> {
    match command {
        PatchCommand::Create(args) => create(args, output),
        PatchCommand::Show(args) => show(args, output),
        PatchCommand::Apply(args) => apply(args, output),
    }
}

fn create(args: &CreateArgs, output: Output) -> Result<(), Error> {
    let started = std::time::Instant::now();
    let (old, new) = (Folder::open(&args.old)?, Folder::open(&args.new)?);
    let listing = |drafts: &_| old.listing(&new, drafts);
    let options = Options::new(args.memory);
    let made = make(&old.side, &new.side, Some(&listing), &options, &args.output)?;
    let whole = new.scan.total;
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let percent = made.size as f64 * 100.0 / whole.max(1) as f64;
    let seconds = started.elapsed().as_secs_f64();
    output.tell(
        "created",
        format!(
            "wrote {}: {}, {percent:.3} % of {}, in {seconds:.1} s",
            args.output.display(),
            bytes(made.size),
            bytes(whole)
        ),
        json!({
            "file": args.output,
            "size": made.size,
            "whole": whole,
            "outputs": made.patch.outputs.len(),
            "groups": made.patch.groups.len(),
            "seconds": seconds,
        }),
    );
    Ok(())
}

fn show(args: &ShowArgs, output: Output) -> Result<(), Error> {
    let patch = open(&args.file)?;
    let makes: u64 = patch.outputs.iter().map(|output| output.length).sum();
    let sources: usize = patch.outputs.iter().map(|output| output.sources.len()).sum();
    let size = std::fs::metadata(&args.file).map_err(Error::disk("read", &args.file))?.len();
    let mut text = format!("{}", args.file.display());
    let mut line = |key: &str, value: String| text += &format!("\n  {key:<8} {value}");
    line("format", VERSION.to_string());
    line("size", bytes(size));
    line("from", patch.from.to_string());
    line("to", patch.to.to_string());
    line("outputs", format!("{}, {}", patch.outputs.len(), bytes(makes)));
    line("sources", sources.to_string());
    line("groups", patch.groups.len().to_string());
    line("memory", bytes(MEMORY_MAX));
    if let Some(listing) = &patch.listing {
        let (put, remove) = (listing.put.len(), listing.remove.len());
        line("listing", format!("{put} put, {remove} removed"));
    }
    let groups: Vec<_> = patch
        .groups
        .iter()
        .map(|group| {
            json!({
                "start": group.bytes.start,
                "bytes": group.bytes.end - group.bytes.start,
                "outputs": group.outputs.len(),
            })
        })
        .collect();
    output.tell(
        "patch",
        text,
        json!({
            "file": args.file,
            "version": VERSION,
            "size": size,
            "from": patch.from.to_string(),
            "to": patch.to.to_string(),
            "outputs": patch.outputs.len(),
            "makes": makes,
            "sources": sources,
            "groups": groups,
            "memory": MEMORY_MAX,
            "listing": patch.listing.as_ref().map(|listing| json!({
                "put": listing.put.len(),
                "remove": listing.remove.len(),
            })),
        }),
    );
    Ok(())
}

fn apply(args: &ApplyArgs, output: Output) -> Result<(), Error> {
    let started = std::time::Instant::now();
    let patch = open(&args.file)?;
    let Some(listing) = &patch.listing else {
        let why = "names no files: it is of a published release, and launchers apply it";
        return Err(Error::content(&args.file, why));
    };
    let old = Folder::open(&args.old)?;
    let applied = make_folder(&args.file, &patch, listing, &old, &args.output)?;
    let seconds = started.elapsed().as_secs_f64();
    output.tell(
        "applied",
        format!(
            "made {}: {} files patched, {}, verified, in {seconds:.1} s",
            args.output.display(),
            applied.files,
            bytes(applied.bytes)
        ),
        json!({
            "folder": args.output,
            "files": applied.files,
            "bytes": applied.bytes,
            "seconds": seconds,
        }),
    );
    Ok(())
}
