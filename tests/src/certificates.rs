//! Certificates for tests of TLS: an authority, and what it signs.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// An authority with a key of its own.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

/// A certificate with its key, both in PEM.
#[derive(Debug, Clone)]
pub struct Certified {
    /// The certificate alone.
    pub certificate: String,
    /// Its key, PKCS#8.
    pub key: String,
}

/// Until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// For centuries.
    Now,
    /// It ended in 2021.
    Expired,
}

impl Authority {
    /// A new one of that name.
    ///
    /// # Panics
    /// Never: what it is made of is fixed.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("ring makes keys");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("it can sign itself") }
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server's certificate for `localhost` and the loopback addresses.
    pub fn server(&self) -> Certified {
        let names = ["localhost", "127.0.0.1", "::1"];
        self.sign("server", &names, ExtendedKeyUsagePurpose::ServerAuth, Validity::Now)
    }

    /// A client's certificate with that common name and those subject alternative names: addresses where they are, else DNS.
    pub fn client(&self, name: &str, names: &[&str], validity: Validity) -> Certified {
        self.sign(name, names, ExtendedKeyUsagePurpose::ClientAuth, validity)
    }

    fn sign(
        &self,
        name: &str,
        names: &[&str],
        usage: ExtendedKeyUsagePurpose,
        validity: Validity,
    ) -> Certified {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names are ASCII");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        if validity == Validity::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().expect("ring makes keys");
        let certificate = params.signed_by(&key, &self.issuer).expect("it can sign");
        Certified { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}
