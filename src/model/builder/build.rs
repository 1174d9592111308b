use std::net::IpAddr;
use std::time::Duration;

use super::super::{DataCenter, Facts, HostLookup, Instance, InstanceStatus, LeaseInfo, LocalFacts, Port, app_name};
use super::check::{check_app, check_host, check_path, check_url, is_usable_id, parse_address};
use super::error::{Fault, PLACEHOLDERS};
use super::pages::HOST_PLACEHOLDER;
use super::{InstanceBuilder, InvalidInstance};

/// Entries of the Amazon metadata that a host name is taken from by default.
const RESOLUTION_ORDER: [&str; 2] = ["public-hostname", "local-ipv4"];
/// Entries of the Amazon metadata that hold a host name or address.
const HOST_ENTRIES: [&str; 5] = ["public-hostname", "public-ipv4", "local-hostname", "local-ipv4", "ipv6"];

impl InstanceBuilder {
    /// Builds the instance.
    ///
    /// Does not wait. The registrar replaces a detected address by that of the route to the
    /// registry, and finds a host name that has to be looked up, before its first registration.
    ///
    /// # Errors
    /// Fails if the name or id is reserved or unfit for a URL path, no port is set, an address,
    /// URL, path or rule is malformed, a value has a placeholder (`${...}`), or a duration is not
    /// in whole seconds.
    pub fn build(mut self) -> Result<Instance, InvalidInstance> {
        self.drop_empty_texts();
        self.check_texts()?;
        check_app(&self.app)?;
        let (port, secure_port) = self.ports()?;
        let lease = self.lease()?;
        let (ip_addr, detected) = match self.fixed_address() {
            Some(ip) => (canonical(ip), false),
            None => (self.local_address().to_string(), true),
        };
        let host_name = self.known_host_name();
        let look_up = host_name.is_none() && self.prefer_ip_address == Some(false);
        let look_up = look_up.then(|| HostLookup {
            limit: self.host_name_timeout,
            default: self.default_host_name.as_deref().map(Into::into),
        });
        let host = host_name.unwrap_or_else(|| ip_addr.clone());
        let number = if port.enabled || !secure_port.enabled { port.number } else { secure_port.number };
        let given_id = self.id.clone().or_else(|| self.data_center.instance_id().map(str::to_owned));
        // The address stands for the host name of the machine if that is unknown.
        let is_address = |host: &String| detected && !self.is_id_host_set && *host == ip_addr;
        let has_default_id = given_id.is_none() && self.id_host.as_ref().is_none_or(is_address);
        let id = given_id.unwrap_or_else(|| {
            let suffix = self.id_suffix.clone().unwrap_or_else(|| number.to_string());
            let (host, app) = (self.id_host.as_deref().unwrap_or(&host), self.id_app.as_deref().unwrap_or(&self.app));
            format!("{host}:{app}:{suffix}")
        });
        if !is_usable_id(&id) {
            return Err(InvalidInstance::new(&self.app, Fault::BadId(id)));
        }
        let names = |names: &Option<String>| Some(names.as_deref().map_or_else(|| self.app.clone(), comma_list).into());
        let instance = Instance {
            instance_id: Some(id.into()),
            host_name: Some(host.as_str().into()),
            ip_addr: Some(ip_addr.into()),
            status: InstanceStatus::Up,
            port,
            secure_port,
            data_center: Some(self.data_center.clone()),
            lease: Some(lease),
            metadata: self.metadata.clone(),
            app_group: self.app_group.as_deref().map(app_name),
            asg_name: self.asg_name.as_deref().map(Into::into),
            vip_address: names(&self.vip_address),
            secure_vip_address: names(&self.secure_vip_address),
            local: LocalFacts::new(Facts {
                rules: detected.then(|| self.address_rules()),
                look_up,
                is_looked_up: false,
                has_default_id,
                page_paths: self.page_paths(),
            }),
            ..Instance::bare(app_name(&self.app))
        };
        Ok(self.set_pages(instance))
    }

    /// Returns the plain and the secure port.
    fn ports(&self) -> Result<(Port, Port), InvalidInstance> {
        let fault = |fault| Err(InvalidInstance::new(&self.app, fault));
        let bound = |address: Option<std::net::SocketAddr>| address.map(|address| address.port());
        // The setting names the port of the listener, which may be the one for HTTPS.
        let setting = self.server_port.filter(|_| self.secure_bound.is_none() && !self.has_secure_port);
        let plain = self.port.or(bound(self.bound)).or(setting);
        let secure_enabled = self.secure_port_enabled.unwrap_or(false);
        let own_secure = self.secure_port.or(bound(self.secure_bound));
        let secure = own_secure.or(plain.filter(|_| secure_enabled));
        if plain == Some(0) || secure == Some(0) || self.management_port == Some(0) {
            return fault(Fault::PortZero);
        }
        if plain.is_none() && (secure.is_none() || !secure_enabled) {
            return fault(Fault::NoPort);
        }
        let plain_enabled = plain.is_some() && self.port_enabled.unwrap_or(true);
        let port = Port { number: plain.unwrap_or(80).into(), enabled: plain_enabled };
        Ok((port, Port { number: secure.unwrap_or(443).into(), enabled: secure_enabled }))
    }

    /// Returns the rules for the detection of the address.
    pub(super) fn address_rules(&self) -> super::AddressRules {
        let mut rules = self.rules.clone();
        if self.bound.or(self.secure_bound).is_some_and(|bound| bound.is_ipv4()) {
            rules.only_ipv4();
        }
        rules
    }

    /// Returns the address that needs no detection: that of the user, that of Amazon, or that of a
    /// listener which accepts connections at one address only.
    fn fixed_address(&self) -> Option<String> {
        let public = self.amazon("public-ipv4").filter(|_| self.public_ipv4);
        let amazon = || public.or_else(|| self.amazon("local-ipv4")).map(str::to_owned);
        self.ip_addr.clone().or_else(amazon).or_else(|| {
            let bound = self.bound.or(self.secure_bound)?.ip().to_canonical();
            if bound.is_loopback() {
                tracing::info!(
                    app = self.app,
                    address = %bound,
                    "listener accepts local connections only, registering its loopback address"
                );
            }
            (!bound.is_unspecified()).then(|| bound.to_string())
        })
    }

    /// Returns the host name that needs no look-up. `None` if the address is preferred to it.
    fn known_host_name(&self) -> Option<String> {
        if self.prefer_ip_address == Some(true) {
            return None;
        }
        self.host_name.clone().or_else(|| {
            let order = self.resolution_order.iter().flatten().map(|entry| dashed(entry));
            let order = order.chain(RESOLUTION_ORDER.map(str::to_owned));
            order.into_iter().find_map(|entry| self.amazon(&entry)).map(str::to_owned)
        })
    }

    /// Returns an entry of the Amazon metadata, if it is not empty.
    fn amazon(&self, entry: &str) -> Option<&str> {
        match &self.data_center {
            DataCenter::Amazon(metadata) => metadata.get(entry).map(str::trim).filter(|value| !value.is_empty()),
            _ => None,
        }
    }

    /// Drops texts that are empty, which count as not set. An empty URL is kept, since it means
    /// that there is no such page.
    fn drop_empty_texts(&mut self) {
        for text in [
            &mut self.host_name,
            &mut self.ip_addr,
            &mut self.default_host_name,
            &mut self.default_ip_addr,
            &mut self.app_group,
            &mut self.asg_name,
        ] {
            *text = text.take().filter(|text| !text.is_empty());
        }
        for names in [&mut self.vip_address, &mut self.secure_vip_address] {
            *names = names.take().filter(|names| !comma_list(names).is_empty());
        }
    }

    /// Checks all strings. An empty string counts as not set.
    fn check_texts(&self) -> Result<(), InvalidInstance> {
        let fault = |fault| Err(InvalidInstance::new(&self.app, fault));
        let urls = [
            ("home page URL", &self.home_page_url),
            ("status page URL", &self.status_page_url),
            ("health check URL", &self.health_check_url),
            ("secure health check URL", &self.secure_health_check_url),
        ]
        .map(|(field, url)| (field, url.as_deref().map(|url| url.replace(HOST_PLACEHOLDER, "host"))));
        let urls = urls.each_ref().map(|(field, url)| (*field, url));
        let paths = [
            ("home page path", &self.home_page_path),
            ("status page path", &self.status_page_path),
            ("health check path", &self.health_check_path),
            ("context path", &self.context_path),
            ("management context path", &self.management_context_path),
        ];
        let hosts = [("host name", &self.host_name), ("default host name", &self.default_host_name)];
        let addresses = [("IP address", &self.ip_addr), ("default IP address", &self.default_ip_addr)];
        let names = [
            ("id", &self.id),
            ("VIP address", &self.vip_address),
            ("secure VIP address", &self.secure_vip_address),
            ("application group", &self.app_group),
            ("auto scaling group", &self.asg_name),
        ];
        // Placeholders stay as they are where nothing resolves them.
        let has_placeholder = |text: &str| PLACEHOLDERS.iter().any(|start| text.contains(start));
        if has_placeholder(&self.app) {
            return fault(Fault::Placeholder("name"));
        }
        for (field, text) in urls.into_iter().chain(paths).chain(hosts).chain(addresses).chain(names) {
            if text.as_deref().is_some_and(has_placeholder) {
                return fault(Fault::Placeholder(field));
            }
        }
        let given = |text: &'_ Option<String>| text.clone().filter(|text| !text.is_empty());
        for (field, url) in urls {
            if let Some(url) = given(url)
                && let Err(why) = check_url(&url)
            {
                let shown = if url.contains('@') { "...".into() } else { url };
                return fault(Fault::Unusable(field, shown, why));
            }
        }
        for (field, path) in paths {
            if let Some(path) = given(path)
                && let Err(why) = check_path(&path)
            {
                return fault(Fault::Unusable(field, path, why));
            }
        }
        for (field, address) in addresses {
            if let Some(address) = given(address)
                && let Err(why) = parse_address(&address)
            {
                return fault(Fault::Unusable(field, address, why));
            }
        }
        for (field, host) in hosts {
            if let Some(host) = given(host)
                && let Err(why) = check_host(&host)
            {
                return fault(Fault::Unusable(field, host, why));
            }
        }
        if let Some((field, text, why)) = &self.unusable_rule {
            return fault(Fault::Unusable(field, text.clone(), why));
        }
        for entry in self.resolution_order.iter().flatten() {
            if !HOST_ENTRIES.contains(&&*dashed(entry)) {
                let why = "it is not public-hostname, public-ipv4, local-hostname, local-ipv4 or ipv6";
                return fault(Fault::Unusable("address resolution order", entry.clone(), why));
            }
        }
        if self.resolution_order.is_some() && !matches!(self.data_center, DataCenter::Amazon(_)) {
            tracing::info!(app = self.app, "address resolution order has no effect without the metadata of Amazon");
        }
        self.check_amazon()
    }

    /// Checks the entries of Amazon that become the address and the host name.
    fn check_amazon(&self) -> Result<(), InvalidInstance> {
        let fault = |entry, value: &str, why| {
            Err(InvalidInstance::new(&self.app, Fault::Unusable(entry, value.to_owned(), why)))
        };
        for entry in HOST_ENTRIES {
            let Some(value) = self.amazon(entry) else { continue };
            if entry.ends_with("hostname") {
                check_host(value).or_else(|why| fault(entry, value, why))?;
            } else {
                parse_address(value).map(drop).or_else(|why| fault(entry, value, why))?;
            }
        }
        Ok(())
    }

    fn lease(&self) -> Result<LeaseInfo, InvalidInstance> {
        let lease = LeaseInfo {
            renewal_interval_secs: self.whole_seconds("renewal interval", self.renewal_interval)?,
            duration_secs: self.whole_seconds("lease duration", self.lease_duration)?,
            ..LeaseInfo::default()
        };
        if lease.duration_secs <= lease.renewal_interval_secs {
            return Err(InvalidInstance::new(&self.app, Fault::LeaseTooShort(lease)));
        }
        Ok(lease)
    }

    fn whole_seconds(&self, name: &'static str, duration: Duration) -> Result<i32, InvalidInstance> {
        let seconds = i32::try_from(duration.as_secs()).unwrap_or(0);
        if seconds == 0 || duration.subsec_nanos() != 0 {
            return Err(InvalidInstance::new(&self.app, Fault::NotWholeSeconds(name, duration)));
        }
        Ok(seconds)
    }
}

/// Returns IPv4 in the form of IPv6 as IPv4, and other addresses as they are.
fn canonical(address: String) -> String {
    match address.parse::<IpAddr>() {
        Ok(ip) if ip.to_canonical() != ip => ip.to_canonical().to_string(),
        _ => address,
    }
}

/// Returns the names of a list, separated by commas without blanks.
fn comma_list(names: &str) -> String {
    let names: Vec<_> = names.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    names.join(",")
}

/// Converts the name of an entry in the Java client to that in the metadata: `publicHostname` to
/// `public-hostname`.
fn dashed(entry: &str) -> String {
    let mut dashed = String::new();
    for c in entry.trim().chars() {
        if c.is_ascii_uppercase() {
            dashed.push('-');
        }
        dashed.push(c.to_ascii_lowercase());
    }
    dashed
}
