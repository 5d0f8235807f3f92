//! Windows shows players what a program is: version, product and icon, from the package and `windows/icon.ico`. All
//! programs know when they were built, in seconds since 1970: `SOURCE_DATE_EPOCH`, if that is set and not in the future.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let told = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    println!("cargo::rustc-env=UPDRAFT_BUILT={}", now.min(told.unwrap_or(now)));
    println!("cargo::rerun-if-changed=windows/icon.ico");
    if std::env::var_os("CARGO_CFG_WINDOWS").is_none() {
        return;
    }
    let mut resource = winresource::WindowsResource::new();
    resource.set("ProductName", "Updraft").set_icon("windows/icon.ico");
    if let Err(error) = resource.compile() {
        // A program without an icon is better than none: the tool for it is not everywhere.
        println!("cargo::warning=no version and icon in the Windows programs: {error}");
    }
}
