//! Makes the bindings from the headers of the system's DPDK; does nothing without the feature `bindings`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "bindings")]
    if let Err(reason) = bindings::generate() {
        println!("cargo::error={reason}");
        std::process::exit(1);
    }
}

#[cfg(feature = "bindings")]
mod bindings {
    use std::env;
    use std::error::Error;
    use std::panic;
    use std::path::PathBuf;
    use std::process::Command;

    const HEADER: &str = "wrapper.h";
    const INSTALL: &str = "the feature `dpdk` needs DPDK 22.11 or newer with its headers, libclang and pkg-config; \
        on Debian: apt-get install libdpdk-dev libclang-dev pkg-config";

    /// All that is called.
    const FUNCTIONS: &[&str] = &[
        "rte_eal_has_hugepages",
        "rte_eal_init",
        "rte_eal_iova_mode",
        "rte_mem_virt2memseg",
        "rte_memseg_list_walk",
        "rte_strerror",
        "rte_version",
        "rte_vfio_container_dma_map",
        "rte_vfio_container_dma_unmap",
        "rte_vfio_is_enabled",
        "rte_vfio_release_device",
        "rte_vfio_setup_device",
        "rte_zmalloc_socket",
        "sledge_.*",
    ];
    const TYPES: &[&str] = &["rte_iova_mode", "rte_memseg", "rte_memseg_list", "vfio_device_info"];
    const CONSTANTS: &[&str] = &["RTE_VFIO_DEFAULT_CONTAINER_FD"];

    pub fn generate() -> Result<(), Box<dyn Error>> {
        println!("cargo::rerun-if-changed={HEADER}");
        println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
        let flags = pkg_config(&["--cflags"])?;
        let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
        let wrappers = out.join("wrappers.c");

        let mut builder = bindgen::Builder::default()
            .header(HEADER)
            .clang_args(&flags)
            .use_core()
            .derive_default(true)
            .generate_comments(false)
            .default_enum_style(bindgen::EnumVariation::ModuleConsts)
            .wrap_static_fns(true)
            .wrap_static_fns_path(&wrappers)
            .rust_target(bindgen::RustTarget::stable(85, 0).map_err(|_| "bindgen knows Rust 1.85")?)
            .rust_edition(bindgen::RustEdition::Edition2024);
        for function in FUNCTIONS {
            builder = builder.allowlist_function(function);
        }
        for name in TYPES {
            builder = builder.allowlist_type(name);
        }
        for name in CONSTANTS {
            builder = builder.allowlist_var(name);
        }
        // Without libclang, bindgen panics.
        let made = panic::catch_unwind(panic::AssertUnwindSafe(|| builder.generate()))
            .map_err(|_| format!("{INSTALL} (bindgen found no libclang)"))?
            .map_err(|error| format!("{INSTALL} (bindgen: {error})"))?;
        made.write_to_file(out.join("bindings.rs"))?;

        let mut compiler = cc::Build::new();
        compiler.file(&wrappers).include(env::current_dir()?).warnings(false);
        for flag in &flags {
            compiler.flag(flag);
        }
        compiler
            .try_compile("sledge_dpdk_wrappers")
            .map_err(|error| format!("{INSTALL} (compiler: {error})"))?;

        // Only the EAL: what pkg-config lists besides are drivers and libraries that are not called.
        for flag in pkg_config(&["--libs-only-L"])? {
            if let Some(folder) = flag.strip_prefix("-L") {
                println!("cargo::rustc-link-search=native={folder}");
            }
        }
        println!("cargo::rustc-link-lib=dylib=rte_eal");
        Ok(())
    }

    /// What pkg-config tells of DPDK.
    fn pkg_config(arguments: &[&str]) -> Result<Vec<String>, Box<dyn Error>> {
        let output = Command::new(env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into()))
            .args(arguments)
            .arg("libdpdk >= 22.11")
            .output()
            .map_err(|error| format!("{INSTALL} (pkg-config: {error})"))?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr);
            let reason = reason.lines().next().unwrap_or("it does not know libdpdk");
            return Err(format!("{INSTALL} (pkg-config: {reason})").into());
        }
        Ok(String::from_utf8(output.stdout)?.split_whitespace().map(str::to_owned).collect())
    }
}
