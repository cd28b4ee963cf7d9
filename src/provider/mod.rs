//! netcup: REST and SOAP behind one trait.
