use super::*;
use crate::model::Instance;
use crate::model::{InstanceStatus, Port};

fn orders() -> InstanceBuilder {
    Instance::builder("orders").port(80).ip_addr("10.0.0.1")
}

#[test]
fn text_that_is_no_address_or_url_fails_at_build() {
    for (builder, part) in [
        (orders().ip_addr("999.1.1.1"), "999.1.1.1"),
        (orders().ip_addr("1.1.1"), "neither IPv4 nor IPv6"),
        (orders().ip_addr("10.0.0.1:80"), "neither IPv4 nor IPv6"),
        (orders().ip_addr("[::1]"), "neither IPv4 nor IPv6"),
        (orders().ip_addr("fe80::zz"), "neither IPv4 nor IPv6"),
        (orders().ip_addr("0.0.0.0"), "IP address '0.0.0.0' of 'orders' is unusable: a listener has it"),
        (orders().ip_addr("0.1.2.3"), "leave it out to register the detected one"),
        (orders().ip_addr("::"), "leave it out"),
        (orders().ip_addr("::ffff:0.0.0.0"), "leave it out"),
        (orders().ip_addr("255.255.255.255"), "broadcast"),
        (orders().ip_addr("224.0.0.1"), "multicast"),
        (orders().ip_addr("::ffff:224.0.0.1"), "multicast"),
        (orders().ip_addr("ff02::1"), "multicast"),
        (orders().ip_addr("fe80::1%eth0"), "its zone"),
        (orders().default_ip_addr("0.0.0.0"), "default IP address '0.0.0.0'"),
        (orders().host_name("0.0.0.0"), "host name '0.0.0.0'"),
        (orders().host_name("[::]"), "leave it out"),
        (orders().host_name("255.255.255.255"), "broadcast"),
        (orders().host_name("fe80::1%eth0"), "its zone"),
        (orders().health_check_url("http://0.0.0.0:8080/health"), "health check URL"),
        (orders().status_page_url("https://[::]/info"), "leave it out"),
        (orders().host_name("http://h"), "it is a URL"),
        (orders().host_name("h:80"), "it has a port"),
        (orders().host_name("my host"), "it is not a host name"),
        (orders().host_name("h/path"), "it is not a host name"),
        (orders().host_name("$HOSTNAME"), "it is not a host name"),
        (orders().host_name("%COMPUTERNAME%"), "it is not a host name"),
        (orders().host_name("{HOSTNAME}"), "it is not a host name"),
        (orders().host_name("<host>"), "it is not a host name"),
        (orders().health_check_url("not a url"), "health check URL 'not a url'"),
        (orders().health_check_url("/health"), "not an absolute URL"),
        (orders().health_check_url("h:80/health"), "not an absolute URL"),
        (orders().status_page_url("ftp://h/"), "status page URL"),
        (orders().home_page_url("http://"), "home page URL"),
        (orders().home_page_url("http://h:99999/"), "its port"),
        (orders().home_page_url("http://h:0/"), "its port"),
        (orders().home_page_url("http://h:x/"), "its port"),
        (orders().secure_health_check_url("https:///health"), "secure health check URL"),
    ] {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("orders"), "{error}");
    }
    for builder in [
        orders().ip_addr("::1"),
        orders().ip_addr(""),
        orders().host_name("[::1]"),
        orders().host_name("::1"),
        orders().host_name("under_score.example.com"),
        orders().health_check_url("https://[::1]:8443/health?deep=true"),
        orders().status_page_url(""),
    ] {
        builder.build().unwrap();
    }
}

#[test]
fn ipv4_in_the_form_of_ipv6_is_registered_as_ipv4() {
    let instance = orders().ip_addr("::ffff:10.0.0.7").build().unwrap();
    assert_eq!((instance.ip_addr(), instance.host_name()), (Some("10.0.0.7"), Some("10.0.0.7")));
    assert_eq!((instance.id(), instance.home_page_url()), ("10.0.0.7:orders:80", Some("http://10.0.0.7:80/")));
    let other = orders().ip_addr("2001:DB8::1").build().unwrap();
    assert_eq!(other.ip_addr(), Some("2001:DB8::1"), "others stay as they are");
}

#[test]
fn placeholder_fails_at_build() {
    let text = "${spring.application.name}";
    for (builder, field) in [
        (Instance::builder(text).port(80), "name"),
        (orders().id(format!("{text}:1")), "id"),
        (orders().host_name("${HOSTNAME}"), "host name"),
        (orders().host_name("$(HOSTNAME)"), "host name"),
        (orders().host_name("{{HOSTNAME}}"), "host name"),
        (orders().id("{{HOSTNAME}}:x"), "id"),
        (orders().id("#{spring}:x"), "id"),
        (orders().ip_addr(text), "IP address"),
        (orders().vip_address(text), "VIP address"),
        (orders().secure_vip_address(text), "secure VIP address"),
        (orders().home_page_url("http://${HOSTNAME}/"), "home page URL"),
        (orders().health_check_url("http://${HOSTNAME}/"), "health check URL"),
    ] {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.starts_with(field) && error.contains("not resolved"), "{error}");
    }
}

#[test]
fn placeholder_of_the_host_name_is_replaced_in_the_urls_of_pages() {
    let at = |rest: &str| format!("https://${{eureka.hostname}}{rest}");
    let builder = orders().home_page_url(at("/")).status_page_url(at(":8443/info")).health_check_url(at("/up?a"));
    for (builder, host) in [
        (builder.clone().host_name("node1.example"), "node1.example"),
        (builder.clone(), "10.0.0.1"),
        (builder.ip_addr("fd00::1"), "[fd00::1]"),
    ] {
        let instance = builder.build().unwrap();
        assert_eq!(instance.home_page_url(), Some(&*format!("https://{host}/")));
        assert_eq!(instance.status_page_url(), Some(&*format!("https://{host}:8443/info")));
        assert_eq!(instance.health_check_url(), Some(&*format!("https://{host}/up?a")));
    }
    let error = orders().status_page_url("${eureka.hostname}/info").build().unwrap_err().to_string();
    assert!(error.contains("status page URL"), "{error}");
}

#[test]
fn record_by_default_is_that_of_a_spring_application_that_prefers_its_address() {
    let instance = orders().build().unwrap();
    assert_eq!((instance.app(), instance.id()), ("ORDERS", "10.0.0.1:orders:80"));
    assert_eq!((instance.host_name(), instance.ip_addr()), (Some("10.0.0.1"), Some("10.0.0.1")));
    assert_eq!(instance.port(), Port { number: 80, enabled: true });
    assert_eq!(instance.secure_port(), Port { number: 443, enabled: false });
    assert_eq!((instance.vip_address(), instance.secure_vip_address()), (Some("orders"), Some("orders")));
    assert_eq!(instance.home_page_url(), Some("http://10.0.0.1:80/"));
    assert_eq!((instance.status_page_url(), instance.health_check_url()), (None, None));
    assert_eq!((instance.app_group(), instance.asg_name(), instance.status()), (None, None, InstanceStatus::Up));
    assert!(instance.metadata().is_empty());
}

#[test]
fn ports_and_their_flags_are_those_of_spring() {
    let port = |number, enabled| Port { number, enabled };
    let none = || Instance::builder("orders").ip_addr("10.0.0.1");
    for (builder, plain, secure, home) in [
        (orders().secure_port_enabled(true), port(80, true), port(80, true), "http://10.0.0.1:80/"),
        (orders().secure_port(8443), port(80, true), port(8443, true), "http://10.0.0.1:80/"),
        (orders().secure_port_number(8443), port(80, true), port(8443, false), "http://10.0.0.1:80/"),
        (
            orders().secure_port_number(8443).secure_port_enabled(true),
            port(80, true),
            port(8443, true),
            "http://10.0.0.1:80/",
        ),
        (
            orders().port_enabled(false).secure_port_enabled(true),
            port(80, false),
            port(80, true),
            "https://10.0.0.1:80/",
        ),
        (none().secure_port(8443), port(80, false), port(8443, true), "https://10.0.0.1:8443/"),
        (orders().secure_port_enabled(false).secure_port(1), port(80, true), port(1, false), "http://10.0.0.1:80/"),
        (none().port_if_unset(8080), port(8080, true), port(443, false), "http://10.0.0.1:8080/"),
        (orders().port_if_unset(80), port(80, true), port(443, false), "http://10.0.0.1:80/"),
    ] {
        let instance = builder.build().unwrap();
        assert_eq!((instance.port(), instance.secure_port()), (plain, secure));
        assert_eq!(instance.home_page_url(), Some(home));
    }
    for builder in [none(), none().port(0), none().secure_port_number(8443), orders().management_port(0)] {
        builder.build().unwrap_err();
    }
}

#[test]
fn urls_are_built_from_paths_and_absolute_urls_win() {
    let urls = |builder: InstanceBuilder| {
        let instance = builder.build().unwrap();
        let urls = [instance.home_page_url(), instance.status_page_url(), instance.health_check_url()];
        urls.map(|url| url.unwrap_or("none").replace("http://10.0.0.1", ""))
    };
    for (builder, expected) in [
        (
            orders().home_page_path("/shop").status_page_path("s").health_check_path("/h?deep=true"),
            [":80/shop", ":80/s", ":80/h?deep=true"],
        ),
        (orders().context_path("/api/").health_check_path("/h"), [":80/", "none", ":80/api/h"]),
        (orders().context_path("/").health_check_path("/h"), [":80/", "none", ":80/h"]),
        (
            orders().context_path("api").management_context_path("/m").status_page_path("/s"),
            [":80/", ":80/api/m/s", "none"],
        ),
        (orders().management_port(81), [":80/", ":81/actuator/info", ":81/actuator/health"]),
        (
            orders().context_path("/api").management_port(81).management_context_path("/m"),
            [":80/", ":81/m/actuator/info", ":81/m/actuator/health"],
        ),
        (
            orders().health_check_path("/h").health_check_url("http://h/x").status_page_url(""),
            [":80/", "none", "http://h/x"],
        ),
        (orders().home_page_path("").health_check_path(""), [":80/", "none", "none"]),
    ] {
        assert_eq!(urls(builder), expected);
    }
    let secure = orders().secure_port(8443).health_check_path("/h").build().unwrap();
    assert_eq!(secure.secure_health_check_url(), Some("https://10.0.0.1:8443/h"));
    let ipv6 = orders().ip_addr("fd00::1").health_check_path("/h").build().unwrap();
    assert_eq!(ipv6.health_check_url(), Some("http://[fd00::1]:80/h"));
    assert_eq!((ipv6.host_name(), ipv6.home_page_url()), (Some("fd00::1"), Some("http://[fd00::1]:80/")));
}

#[test]
fn management_port_is_registered_as_metadata() {
    let metadata =
        |builder: InstanceBuilder| builder.build().unwrap().metadata().get("management.port").map(str::to_owned);
    assert_eq!(metadata(orders()), None);
    assert_eq!(metadata(orders().management_port(81)).as_deref(), Some("81"));
    assert_eq!(metadata(orders().management_port(81).metadata("management.port", "9")).as_deref(), Some("9"));
}

#[cfg(feature = "client")]
#[test]
fn pages_of_the_layer_fill_in_what_is_not_set() {
    let filled = |builder: InstanceBuilder| {
        let instance = builder.build().unwrap().with_pages(Some("/actuator/health"), Some("/actuator/info"));
        let texts = [instance.status_page_url(), instance.health_check_url(), instance.secure_health_check_url()];
        let management_port = instance.metadata().get("management.port").unwrap_or("none").to_owned();
        (texts.map(|url| url.unwrap_or("none").replace("http://10.0.0.1", "")), management_port)
    };
    let texts = |texts: [&str; 3], port: &str| (texts.map(str::to_owned), port.to_owned());
    assert_eq!(filled(orders()), texts([":80/actuator/info", ":80/actuator/health", "none"], "80"));
    assert_eq!(
        filled(orders().secure_port(8443)),
        texts([":80/actuator/info", ":80/actuator/health", "https://10.0.0.1:8443/actuator/health"], "80")
    );
    assert_eq!(
        filled(orders().port_enabled(false).secure_port(8443)),
        texts(
            [
                "https://10.0.0.1:8443/actuator/info",
                "https://10.0.0.1:8443/actuator/health",
                "https://10.0.0.1:8443/actuator/health"
            ],
            "8443"
        )
    );
    assert_eq!(
        filled(orders().management_port(81).status_page_url("http://h/s")),
        texts(["http://h/s", ":81/actuator/health", "none"], "81")
    );
    assert_eq!(
        filled(orders().health_check_path("/up").status_page_url("").metadata("management.port", "7")),
        texts(["none", ":80/up", "none"], "7")
    );
    let plain = orders().context_path("/api").management_context_path("m").build().unwrap();
    assert_eq!(plain.page_paths(), ["/api/m/actuator/health", "/api/m/actuator/info"]);
    assert_eq!(plain.with_pages(None, None), plain);
}

#[test]
fn names_in_lists_are_trimmed() {
    let instance = orders().vip_address(" orders , billing,").secure_vip_address(" , ").build().unwrap();
    assert_eq!((instance.vip_address(), instance.secure_vip_address()), (Some("orders,billing"), Some("orders")));
    let instance = orders().app_group("shop").asg_name("asg-1").metadata_all([("a", "1"), ("b", "2")]);
    let instance = instance.build().unwrap();
    assert_eq!((instance.app_group(), instance.asg_name()), (Some("SHOP"), Some("asg-1")));
    assert_eq!(instance.metadata().iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
}

#[test]
fn default_id_has_the_name_of_the_application_and_the_suffix() {
    let id = |builder: InstanceBuilder| builder.build().unwrap().id().to_owned();
    assert_eq!(id(orders().rename_app_only("BILLS".into())), "10.0.0.1:orders:80");
    assert_eq!(id(orders().id_suffix("i-7")), "10.0.0.1:orders:i-7");
    assert_eq!(id(orders().host_name("h")), "h:orders:80");
}

#[test]
fn amazon_metadata_sets_id_address_host_name_and_zone() {
    let amazon = |entries: &[(&str, &str)]| {
        let metadata: Metadata = entries.iter().copied().collect();
        Instance::builder("orders").port(80).data_center(DataCenter::Amazon(metadata))
    };
    let all = [
        ("instance-id", "i-1"),
        ("local-ipv4", "10.0.0.7"),
        ("public-ipv4", "203.0.113.7"),
        ("public-hostname", "ec2.example.com"),
        ("availability-zone", "us-east-1c"),
    ];
    let instance = amazon(&all).build().unwrap();
    assert_eq!((instance.id(), instance.zone()), ("i-1", Some("us-east-1c")));
    assert_eq!((instance.host_name(), instance.ip_addr()), (Some("ec2.example.com"), Some("10.0.0.7")));
    let host = |builder: InstanceBuilder| builder.build().unwrap().host_name().map(str::to_owned);
    assert_eq!(host(amazon(&all).address_resolution_order(["publicIpv4"])).as_deref(), Some("203.0.113.7"));
    assert_eq!(host(amazon(&all).address_resolution_order(["ipv6", "local-ipv4"])).as_deref(), Some("10.0.0.7"));
    assert_eq!(host(amazon(&all[..2])).as_deref(), Some("10.0.0.7"));
    assert_eq!(host(amazon(&all).host_name("h")).as_deref(), Some("h"));
    assert_eq!(host(amazon(&all).prefer_ip_address(true)).as_deref(), Some("10.0.0.7"));
    let address = |builder: InstanceBuilder| builder.public_ipv4(true).build().unwrap().ip_addr().map(str::to_owned);
    assert_eq!(address(amazon(&all)).as_deref(), Some("203.0.113.7"));
    assert_eq!(address(amazon(&all[..2])).as_deref(), Some("10.0.0.7"), "it has no public address");
    assert_eq!(address(amazon(&all).ip_addr("10.0.0.9")).as_deref(), Some("10.0.0.9"));
    assert_eq!(amazon(&all).id("mine").build().unwrap().id(), "mine");
    let error = amazon(&all).address_resolution_order(["ami-id"]).build().unwrap_err().to_string();
    assert!(error.contains("'ami-id'"), "{error}");
    let error = amazon(&[("local-ipv4", "10.0.0")]).build().unwrap_err().to_string();
    assert!(error.contains("local-ipv4 '10.0.0'"), "{error}");
}

#[test]
fn unusable_path_or_rule_fails_at_build() {
    for (builder, part) in [
        (orders().health_check_path("http://h/up"), "health check path 'http://h/up'"),
        (orders().status_page_path("a b"), "status page path 'a b'"),
        (orders().home_page_path("/#top"), "not a path"),
        (orders().context_path("${x}"), "context path of 'orders' contains"),
        (orders().default_host_name("a b"), "default host name 'a b'"),
        (orders().default_ip_addr("10.0.0"), "default IP address '10.0.0'"),
    ] {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[cfg(feature = "client")]
#[test]
fn unusable_network_fails_at_build() {
    let error = orders().preferred_networks(["10.", "10.0.0.0/64"]).build().unwrap_err().to_string();
    assert!(error.starts_with("preferred network '10.0.0.0/64'"), "{error}");
    let error = orders().ignored_interfaces(["*"]).build().unwrap_err().to_string();
    assert!(error.starts_with("ignored interface '*'"), "{error}");
}
