//! Addresses on the NIC, and their announcement.
