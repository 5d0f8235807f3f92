//! Windows shows players what a program is: version, product and icon, from the package and `windows/icon.ico`.

fn main() {
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
