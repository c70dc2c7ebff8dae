"""The JSON-LD context of a receipt, embedded in every one so that nothing is looked up over the network.

PROV-O (W3C, 2013) says what was derived from what; the other terms are readout's own, each an IRI that names it and
points nowhere.
"""

from __future__ import annotations

from typing import Any

OWN = "urn:policy-readout:terms:"
PROV = "http://www.w3.org/ns/prov#"
XSD = "http://www.w3.org/2001/XMLSchema#"

_DOUBLES = (
    "batch_total_wh", "this_request_share_wh", "shapley_std_error_wh", "calibration_factor", "cold_start_share_wh",
    "energy_wh", "grid_g_per_kwh", "carbon_g", "pue", "leave_one_out_wh", "mean_active_requests", "e_kwh",
    "i_g_per_kwh", "m_g", "sci_g_per_request", "per_token_wh", "per_request_wh", "provisioned_wh",
)  # fmt: skip
_WHOLE = ("batch_size", "shapley_sample_count", "tier", "seed", "r_requests")
_PLAIN = (
    "request_id", "batch_id", "arm", "attribution_method", "game", "energy_model", "sci", "naive", "basis", "sha256",
    "name", "source", "version",
)  # fmt: skip
_TYPES = ("EnergyReceipt", "Batch", "EnergyAttribution")
_PROV = ("wasDerivedFrom", "wasGeneratedBy", "used", "wasAssociatedWith")

CONTEXT: dict[str, Any] = {
    "@version": 1.1,
    "prov": PROV,
    "xsd": XSD,
    "readout": OWN,
    **{term: f"readout:{term}" for term in (*_TYPES, *_PLAIN)},
    **{term: {"@id": f"readout:{term}", "@type": "xsd:double"} for term in _DOUBLES},
    **{term: {"@id": f"readout:{term}", "@type": "xsd:integer"} for term in _WHOLE},
    **{term: {"@id": f"prov:{term}", "@type": "@id"} for term in _PROV},
    "components": {"@id": "readout:components", "@type": "xsd:double", "@container": "@index"},
}
