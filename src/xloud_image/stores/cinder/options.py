"""The cinder store as a type: its options, what they mean together, and what globals say about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from oslo_config import cfg

from xloud_image.stores.store_type import KEYSTONE, Key, Section, StoreType, same

# the service account: all of these or none; where Keystone is may be told alone, for the catalogue
_IDENTITY: Final = "cinder_store_auth_address"
_PASSWORD: Final = "cinder_store_password"  # noqa: S105 - the name of an option
_ACCOUNT: Final = (_IDENTITY, "cinder_store_user_name", _PASSWORD, "cinder_store_project_name")


class _Cinder(StoreType):
    def settle(self, section: Section) -> Mapping[str, Any]:
        """What of the service account has to be filled in. Glance ignores an account that is not whole and takes each
        caller's own token; here that is never done without a word."""
        options = section.options
        given = [name for name in _ACCOUNT if options[name] and name != _IDENTITY]
        missing = [name for name in _ACCOUNT if not options[name]]
        if options["cinder_store_application_credential_id"] or not given or not missing:
            return {}
        user, project, password = (
            section.elsewhere("keystone_authtoken", name) for name in ("username", "project_name", "password")
        )
        same_account = (options["cinder_store_user_name"], options["cinder_store_project_name"]) == (user, project)
        if missing == [_PASSWORD] and password and same_account:
            text = f"is not set: that of [keystone_authtoken] is used, which names the same user '{user}'"
            section.guess(text, _PASSWORD)
            return {_PASSWORD: password}
        for name in missing:
            section.refuse(
                f"is missing: with {', '.join(given)} this store works under an account of its own, which needs it; "
                f"set it, or remove {'this one' if len(given) == 1 else 'these'} to work under each caller's account",
                name,
            )
        return {}


CINDER: Final = _Cinder(
    name="cinder",
    store="xloud_image.stores.cinder.store:CinderStore",
    schemes=("cinder",),
    cloned=True,
    place=("cinder_store_auth_address", "cinder_store_project_name", "cinder_volume_type"),
    options=(
        cfg.StrOpt("cinder_catalog_info", default="volumev3::publicURL", help="type:name:interface in the catalogue."),
        cfg.StrOpt("cinder_endpoint_template", help="Fixed URL; %(project_id)s is filled in."),
        cfg.StrOpt("cinder_os_region_name", deprecated_name="os_region_name", help="Region in the service catalogue."),
        cfg.StrOpt("cinder_store_auth_address", help="URL of the identity service for the service account."),
        cfg.StrOpt("cinder_store_user_name", help="Service account."),
        cfg.StrOpt("cinder_store_password", secret=True, help="Its password."),
        cfg.StrOpt("cinder_store_project_name", help="Its project."),
        cfg.StrOpt("cinder_store_user_domain_name", default="Default", help="Domain of the user."),
        cfg.StrOpt("cinder_store_project_domain_name", default="Default", help="Domain of the project."),
        cfg.StrOpt("cinder_store_application_credential_id", help="Instead of user and password."),
        cfg.StrOpt("cinder_store_application_credential_secret", secret=True, help="Its secret."),
        cfg.StrOpt("cinder_volume_type", help="Type of new volumes."),
        cfg.StrOpt("cinder_ca_certificates_file", help="CA file."),
        cfg.BoolOpt("cinder_api_insecure", default=False, help="Do not verify TLS."),
        cfg.IntOpt("cinder_http_retries", default=3, min=0, help="How often a call is tried again."),
        cfg.IntOpt("cinder_state_transition_timeout", default=300, min=1, help="Seconds to wait for a volume's state."),
        cfg.BoolOpt("cinder_use_multipath", default=False, help="Attach by multipath."),
        cfg.BoolOpt("cinder_enforce_multipath", default=False, help="Fail when multipath does not run."),
        cfg.StrOpt("cinder_mount_point_base", default="/var/lib/glance/mnt", help="Where NFS volumes are mounted."),
        cfg.BoolOpt("cinder_do_extend_attached", default=False, help="Grow a volume while it is attached."),
        cfg.IntOpt("cinder_attachment_retry_attempts", default=5, min=0, help="How often attaching is tried again."),
        cfg.StrOpt("rootwrap_config", default="/etc/glance/rootwrap.conf", help="Without effect: no rootwrap is used."),
    ),
    switch="glance_backend_cinder",
    keys={
        "rootwrap_config": None,
        "cinder_catalog_info": Key("block-storage::internalURL", "inside the deployment"),
        "cinder_store_auth_address": KEYSTONE,
        "cinder_store_user_name": same("glance_keystone_user", "the service's own account"),
        "cinder_store_password": same("glance_keystone_password"),
        "cinder_store_project_name": Key("service", "the service's own account"),
        "cinder_store_user_domain_name": same("default_user_domain_name"),
        "cinder_store_project_domain_name": same("default_project_domain_name"),
        "cinder_os_region_name": same("openstack_region_name"),
        "cinder_ca_certificates_file": same("openstack_cacert"),
    },
    more_keys=("enable_cinder_backend_privileged",),
)
