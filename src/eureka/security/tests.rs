use super::*;
use crate::Eureka;
use crate::config::Settings;

const REGISTRY: (&str, &str) = ("EUREKA_CLIENT_SERVICEURL_DEFAULTZONE", "http://registry.example/");

fn with(variables: &[(&str, &str)]) -> Result<EurekaBuilder, Error> {
    let variables = variables.iter().copied().chain([REGISTRY]);
    Eureka::builder_from(&Settings::builder().environment(variables).without_files().load().unwrap())
}

/// Returns the proxy of the registry after all settings are combined.
fn proxy(builder: EurekaBuilder) -> Result<Option<String>, Error> {
    let mut config = builder.config;
    builder.security.apply(&mut config, false)?;
    let uri = "http://registry.example/".parse().unwrap();
    Ok(config.proxies.of(&uri).map(|proxy| {
        let authorization = config.proxies.authorization(&uri).map(|value| value.to_str().unwrap().to_owned());
        format!("{} {}", proxy.target().unwrap(), authorization.unwrap_or_default())
    }))
}

// "me:pa:ss" in base64
const CREDENTIALS: &str = "Basic bWU6cGE6c3M=";

#[test]
fn proxy_is_read_from_each_source() {
    let document = r#"{"eureka":{"client":{"proxyHost":"proxy","proxyPort":3128,"proxy-user-name":"me","proxy_password":"pa:ss"}}}"#;
    let settings = Settings::builder().environment([REGISTRY]).without_files();
    let arguments = ["host=proxy", "port=3128", "user-name=me", "password=pa:ss"];
    let arguments = arguments.map(|argument| format!("--eureka.client.proxy-{argument}"));
    let by_argument = settings.clone().arguments(arguments).load().unwrap();
    let netflix = [("Host", "proxy"), ("Port", "3128"), ("UserName", "me"), ("Password", "pa:ss")];
    let by_netflix = netflix
        .into_iter()
        .fold(settings, |settings, (name, value)| settings.property(format!("eureka.eurekaServer.proxy{name}"), value));
    for builder in [
        with(&[("HTTP_PROXY", "http://me:pa%3Ass@proxy:3128")]),
        with(&[("http_proxy", "me:pa%3Ass@proxy:3128/")]),
        with(&[("ALL_PROXY", "me:pa%3Ass@proxy:3128")]),
        with(&[
            ("EUREKA_CLIENT_PROXYHOST", "proxy"),
            ("EUREKA_CLIENT_PROXY_PORT", "3128"),
            ("EUREKA_CLIENT_PROXYUSERNAME", "me"),
            ("EUREKA_CLIENT_PROXYPASSWORD", "pa:ss"),
            ("HTTP_PROXY", "http://other:1"),
        ]),
        with(&[("SPRING_APPLICATION_JSON", document)]),
        Eureka::builder_from(&by_argument),
        Eureka::builder_from(&by_netflix.load().unwrap()),
        with(&[("HTTP_PROXY", "http://other:1")]).map(|builder| builder.proxy("http://me:pa%3Ass@proxy:3128")),
    ] {
        let builder = builder.unwrap();
        assert!(!format!("{builder:?}").contains("pa:ss"), "{builder:?}");
        assert_eq!(proxy(builder).unwrap(), Some(format!("proxy:3128 {CREDENTIALS}")));
    }
}

#[test]
fn hosts_of_no_proxy_are_called_directly() {
    let excluded = ("NO_PROXY", "registry.example");
    assert_eq!(proxy(with(&[("HTTP_PROXY", "proxy:1"), excluded]).unwrap()).unwrap(), None);
    let by_key = [("EUREKA_CLIENT_PROXYHOST", "proxy"), ("EUREKA_CLIENT_PROXYPORT", "1"), excluded];
    assert_eq!(proxy(with(&by_key).unwrap()).unwrap(), None);
    assert!(proxy(with(&by_key).unwrap().no_proxy("other.example")).unwrap().is_some());
    assert_eq!(proxy(with(&[("HTTPS_PROXY", "proxy:1")]).unwrap()).unwrap(), None);
}

#[test]
fn unusable_proxy_is_an_error_with_its_setting_and_without_the_password() {
    for (variables, why) in [
        (&[("HTTP_PROXY", "socks5://me:secret@proxy")][..], "HTTP_PROXY is unusable: only http:// proxies"),
        (&[("EUREKA_CLIENT_PROXYHOST", "proxy")], "without eureka.client.proxy-port"),
        (
            &[("EUREKA_CLIENT_PROXYHOST", "http://me:secret@proxy"), ("EUREKA_CLIENT_PROXYPORT", "1")],
            "eureka.client.proxy-host is unusable",
        ),
    ] {
        let error = with(variables).unwrap().build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains(why), "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
    let error = with(&[("EUREKA_CLIENT_PROXYPORT", "many")]).unwrap_err().to_string();
    assert!(error.contains("EUREKA_CLIENT_PROXYPORT") && error.contains("a port"), "{error}");
    // A proxy that no server needs may be unusable.
    assert!(with(&[("HTTPS_PROXY", "socks5://proxy")]).unwrap().build().is_ok());
}

#[cfg(feature = "tls")]
#[test]
fn stores_are_read_if_tls_is_enabled() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/stores");
    let location = format!("file:{folder}/ca.pem");
    let trust = ("EUREKA_CLIENT_TLS_TRUSTSTORE", &*location);
    let enabled = ("EUREKA_CLIENT_TLS_ENABLED", "true");
    let tls = |variables: &[(&str, &str)]| {
        let builder = with(variables)?;
        let mut config = builder.config;
        builder.security.apply(&mut config, false)?;
        Ok::<_, Error>(format!("{:?}", config.tls))
    };
    let password = ("EUREKA_CLIENT_TLS_TRUSTSTOREPASSWORD", "hunter2");
    let shown = tls(&[enabled, trust, ("EUREKA_CLIENT_TLS_TRUST_STORE_TYPE", "pem"), password]).unwrap();
    assert!(shown.contains("ca.pem") && shown.contains("***") && !shown.contains("hunter2"), "{shown}");
    assert!(!tls(&[trust]).unwrap().contains("ca.pem"), "Spring ignores stores, too, unless TLS is enabled");

    for (name, value, why) in [
        ("EUREKA_CLIENT_TLS_TRUSTSTORETYPE", "BKS", "expected PKCS12, JKS or PEM"),
        ("EUREKA_CLIENT_TLS_KEYSTORE", "classpath:keystore.p12", "a classpath exists in Java only"),
        ("EUREKA_CLIENT_TLS_KEYSTORE", "missing.p12", "missing.p12"),
        ("EUREKA_CLIENT_TLS_KEYSTORE", &format!("{folder}/identity.jks"), "keytool -importkeystore"),
    ] {
        let error = tls(&[enabled, password, (name, value)]).unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
    }
}

#[cfg(feature = "pkcs12")]
#[test]
fn password_of_a_key_is_that_of_its_pkcs12_store() {
    let store = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/stores/identity-keytool.p12");
    let build = |key_password: Option<&str>| {
        let variables = [
            ("EUREKA_CLIENT_TLS_ENABLED", "true"),
            ("EUREKA_CLIENT_TLS_KEYSTORE", store),
            ("EUREKA_CLIENT_TLS_KEYSTOREPASSWORD", "changeit"),
            ("EUREKA_CLIENT_TLS_TRUSTSTORE", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/stores/ca.pem")),
        ];
        let key_password = key_password.map(|password| ("EUREKA_CLIENT_TLS_KEYPASSWORD", password));
        with(&variables.into_iter().chain(key_password).collect::<Vec<_>>()).unwrap().build()
    };
    build(None).unwrap();
    build(Some("changeit")).unwrap();
    let error = build(Some("hunter2")).unwrap_err().to_string();
    assert!(error.contains("a PKCS#12 store has one password") && !error.contains("hunter2"), "{error}");
}
