//! The SOAP service's description and schema: what zeep and suds read before their first call.
//!
//! Element names, their case and order, and that children are unqualified are netcup's; which of them may be
//! missing is an inference.

const SERVICE: &str = "http://enduser.service.web.vcp.netcup.de/";

/// An element: name, type, and whether it comes once or any number of times.
type Field = (&'static str, &'static str, Times);

#[derive(Clone, Copy)]
enum Times {
    Once,
    Any,
}

use Times::{Any, Once};

/// An operation: its name, what it takes after the credentials, what its `return` is.
type Operation = (&'static str, &'static [&'static str], &'static str, Times);

const OPERATIONS: [Operation; 7] = [
    (
        "changeIPRouting",
        &["routedIP", "routedMask", "destinationVserverName", "destinationInterfaceMAC"],
        "xs:boolean",
        Once,
    ),
    ("getVServers", &[], "xs:string", Any),
    ("getVServerIPs", &["vserverName"], "xs:string", Any),
    ("getVServerState", &["vserverName"], "xs:string", Once),
    ("getVServerNickname", &["vservername"], "xs:string", Once),
    ("getVServerInformation", &["vservername", "language"], "tns:vServerInformationObject", Once),
    ("getPanelSettings", &[], "tns:panelSettings", Once),
];

const OBJECTS: [(&str, &[Field]); 4] = [
    (
        "vServerInformationObject",
        &[
            ("cpuCores", "xs:int", Once),
            ("currentMonth", "tns:trafficMonthObject", Once),
            ("ips", "xs:string", Any),
            ("memory", "xs:long", Once),
            ("rebootRecommended", "xs:boolean", Once),
            ("rescueEnabled", "xs:boolean", Once),
            ("serverInterfaces", "tns:serverInterface", Any),
            ("status", "xs:string", Once),
            ("uptime", "xs:string", Once),
            ("vServerName", "xs:string", Once),
            ("vServerNickname", "xs:string", Once),
        ],
    ),
    (
        "serverInterface",
        &[
            ("driver", "xs:string", Once),
            ("id", "xs:string", Once),
            ("ipv4IP", "xs:string", Any),
            ("ipv6IP", "xs:string", Any),
            ("mac", "xs:string", Once),
            ("trafficThrottled", "xs:boolean", Once),
        ],
    ),
    (
        "trafficMonthObject",
        &[
            ("in", "xs:long", Once),
            ("month", "xs:int", Once),
            ("out", "xs:long", Once),
            ("total", "xs:long", Once),
            ("year", "xs:int", Once),
        ],
    ),
    (
        "panelSettings",
        &[
            ("language", "xs:string", Once),
            ("passwordlessMode", "xs:boolean", Once),
            ("secureAccessMode", "xs:boolean", Once),
            ("showNickname", "xs:boolean", Once),
            ("webserviceEnabled", "xs:boolean", Once),
        ],
    ),
];

fn sequence(name: &str, fields: impl Iterator<Item = Field>) -> String {
    let each = |(name, kind, times): Field| {
        let most = if matches!(times, Any) { " maxOccurs=\"unbounded\"" } else { "" };
        format!("<xs:element name=\"{name}\" type=\"{kind}\" minOccurs=\"0\"{most}/>")
    };
    let fields: String = fields.map(each).collect();
    format!("<xs:complexType name=\"{name}\"><xs:sequence>{fields}</xs:sequence></xs:complexType>")
}

/// The schema that the description imports: `…?xsd=1`.
pub(crate) fn schema() -> String {
    let mut text = format!(
        "<?xml version='1.0' encoding='UTF-8'?><xs:schema xmlns:xs=\"http://www.w3.org/2001/XMLSchema\" \
         xmlns:tns=\"{SERVICE}\" version=\"1.0\" targetNamespace=\"{SERVICE}\">"
    );
    for (name, takes, gives, times) in OPERATIONS {
        for element in [name.to_owned(), format!("{name}Response")] {
            text.push_str(&format!("<xs:element name=\"{element}\" type=\"tns:{element}\"/>"));
        }
        let fields = ["loginName", "password"].iter().chain(takes);
        text.push_str(&sequence(name, fields.map(|field| (*field, "xs:string", Once))));
        let gives = std::iter::once(("return", gives, times));
        text.push_str(&sequence(&format!("{name}Response"), gives));
    }
    for (name, fields) in OBJECTS {
        text.push_str(&sequence(name, fields.iter().copied()));
    }
    text.push_str("</xs:schema>");
    text
}

/// The description: `…?wsdl`. `base` is the service's own address as the client knows it.
pub(crate) fn description(base: &str) -> String {
    let (mut messages, mut ports, mut bindings) = (String::new(), String::new(), String::new());
    for (name, ..) in OPERATIONS {
        for message in [name.to_owned(), format!("{name}Response")] {
            messages.push_str(&format!(
                "<message name=\"{message}\"><part name=\"parameters\" element=\"tns:{message}\"/></message>"
            ));
        }
        let action = format!("{SERVICE}WSEndUser/{name}");
        ports.push_str(&format!(
            "<operation name=\"{name}\"><input wsam:Action=\"{action}Request\" message=\"tns:{name}\"/>\
             <output wsam:Action=\"{action}Response\" message=\"tns:{name}Response\"/></operation>"
        ));
        bindings.push_str(&format!(
            "<operation name=\"{name}\"><soap:operation soapAction=\"\"/><input><soap:body use=\"literal\"/></input>\
             <output><soap:body use=\"literal\"/></output></operation>"
        ));
    }
    format!(
        "<?xml version='1.0' encoding='UTF-8'?><definitions xmlns=\"http://schemas.xmlsoap.org/wsdl/\" \
         xmlns:tns=\"{SERVICE}\" xmlns:soap=\"http://schemas.xmlsoap.org/wsdl/soap/\" \
         xmlns:wsam=\"http://www.w3.org/2007/05/addressing/metadata\" xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" \
         targetNamespace=\"{SERVICE}\" name=\"WSEndUserService\"><types><xsd:schema><xsd:import \
         namespace=\"{SERVICE}\" schemaLocation=\"{base}/SCP/WSEndUser?xsd=1\"/></xsd:schema></types>{messages}\
         <portType name=\"WSEndUser\">{ports}</portType><binding name=\"WSEndUserPortBinding\" type=\"tns:WSEndUser\">\
         <soap:binding transport=\"http://schemas.xmlsoap.org/soap/http\" style=\"document\"/>{bindings}</binding>\
         <service name=\"WSEndUserService\"><port name=\"WSEndUserPort\" binding=\"tns:WSEndUserPortBinding\">\
         <soap:address location=\"{base}/SCP/WSEndUser\"/></port></service></definitions>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scp::xml::parse;

    #[test]
    fn description_and_schema_are_xml_and_fit_together() {
        let schema = parse(&schema()).unwrap();
        let names: Vec<String> = OPERATIONS
            .iter()
            .flat_map(|(name, ..)| [(*name).to_owned(), format!("{name}Response")])
            .collect();
        assert_eq!(schema.children.iter().filter(|child| child.name == "element").count(), 14);
        assert_eq!(schema.children.iter().filter(|child| child.name == "complexType").count(), 18);
        let text = description("https://host:1");
        parse(&text).unwrap();
        for name in names {
            assert!(text.contains(&format!("element=\"tns:{name}\"")), "{name}");
        }
        assert!(text.contains("location=\"https://host:1/SCP/WSEndUser\""));
    }
}
