"""The rules: their names and default checks as upstream has them, and our own. No file is read and nothing
decided here.

Names and checks are those of the Image API's policy as of release 33 (API reference, section "Default
rights"), so that a `policy.yaml` written for it means the same here.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from oslo_policy import policy as oslo

_ADMIN: Final = "rule:context_is_admin"
_MEMBER: Final = "role:member and project_id:%(project_id)s"
_READER: Final = "role:reader and project_id:%(project_id)s"
_MAY_CONCERN: Final = (
    "(project_id:%(project_id)s or project_id:%(member_id)s or 'community':%(visibility)s"
    " or 'public':%(visibility)s or 'shared':%(visibility)s)"
)
_ADMIN_OR_MEMBER: Final = f"{_ADMIN} or ({_MEMBER})"
_ADMIN_OR_READER: Final = f"{_ADMIN} or ({_READER})"
_GET: Final = f"{_ADMIN} or (role:reader and {_MAY_CONCERN})"
_DOWNLOAD: Final = f"{_ADMIN} or (role:member and {_MAY_CONCERN})"
_MEMBERSHIP: Final = f"{_ADMIN} or role:reader and (project_id:%(project_id)s or project_id:%(member_id)s)"
_NAMESPACE: Final = f"{_ADMIN} or (role:reader and (project_id:%(project_id)s or 'public':%(visibility)s))"
_METADEF_ADMIN: Final = "rule:metadef_admin"

# What a rule was before the defaults knew roles; it counts beside the new one with `enforce_new_defaults =
# false`.
_OPEN: Final = "rule:default"
_OPEN_METADEF: Final = "rule:metadef_default"
_OLD_CACHE: Final = "rule:manage_image_cache"

_IMAGE: Final = "/v2/images/{image_id}"
_NS: Final = "/v2/metadefs/namespaces/{namespace_name}"


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `does` completes the sentence "You may not …". `calls` are `METHOD path`.

    `reads`: the rule changes nothing, so a read-only caller may be asked by it. `legacy`: the older default
    check. `base`: a building block of other rules, which no call asks for itself.
    """

    name: str
    check: str
    does: str
    calls: tuple[str, ...] = ()
    reads: bool = False
    legacy: str | None = None
    base: bool = False
    note: str = ""

    @property
    def description(self) -> str:
        """The sentence for lists of the rules."""
        text = self.does if self.base else f"Who may {self.does}."
        return f"{text} {self.note}".strip()

    def default(self) -> oslo.RuleDefault:
        """The rule as oslo.policy registers it."""
        old = self.legacy and oslo.DeprecatedRule(
            name=self.name,
            check_str=self.legacy,
            deprecated_reason="the default now asks for a role in the project",
            deprecated_since="Xena",
        )
        if self.base or not self.calls:
            return oslo.RuleDefault(
                self.name,
                self.check,
                self.description,
                deprecated_rule=old or None,
                scope_types=None if self.base else ["project"],
            )
        pairs = (call.split(" ", 1) for call in self.calls)
        operations: list[oslo.Operation] = [{"method": method, "path": path} for method, path in pairs]
        return oslo.DocumentedRuleDefault(
            self.name,
            self.check,
            self.description,
            operations,
            deprecated_rule=old or None,
            scope_types=["project"],
        )


def _metadef() -> tuple[Rule, ...]:
    """The metadata definitions: reading by namespace, writing by its administrator."""

    def read(name: str, does: str, call: str, check: str = _NAMESPACE) -> Rule:
        return Rule(name, check, does, (call,), reads=True, legacy=_OPEN_METADEF)

    def write(name: str, does: str, call: str) -> Rule:
        return Rule(name, _METADEF_ADMIN, does, (call,))

    types = f"{_NS}/resource_types"
    prop, obj, tag = f"{_NS}/properties", f"{_NS}/objects", f"{_NS}/tags"
    return (
        Rule("metadef_default", "", "Base of older metadata definition rules.", base=True, reads=True),
        Rule("metadef_admin", _ADMIN, "Base of the rules that change metadata definitions.", base=True),
        read("get_metadef_namespace", "read a metadata namespace", f"GET {_NS}"),
        read(
            "get_metadef_namespaces",
            "list metadata namespaces",
            "GET /v2/metadefs/namespaces",
            _ADMIN_OR_READER,
        ),
        write("modify_metadef_namespace", "change a metadata namespace", f"PUT {_NS}"),
        write("add_metadef_namespace", "add a metadata namespace", "POST /v2/metadefs/namespaces"),
        write("delete_metadef_namespace", "delete a metadata namespace", f"DELETE {_NS}"),
        read("get_metadef_object", "read a metadata object", f"GET {obj}/{{object_name}}"),
        read("get_metadef_objects", "list metadata objects", f"GET {obj}"),
        write("modify_metadef_object", "change a metadata object", f"PUT {obj}/{{object_name}}"),
        write("add_metadef_object", "add a metadata object", f"POST {obj}"),
        write("delete_metadef_object", "delete a metadata object", f"DELETE {obj}/{{object_name}}"),
        read("list_metadef_resource_types", "list resource types", "GET /v2/metadefs/resource_types"),
        read("get_metadef_resource_type", "read the resource types of a namespace", f"GET {types}"),
        write("add_metadef_resource_type_association", "tie a resource type to a namespace", f"POST {types}"),
        write("remove_metadef_resource_type_association", "untie a resource type", f"DELETE {types}/{{name}}"),
        read("get_metadef_property", "read a metadata property", f"GET {prop}/{{property_name}}"),
        read("get_metadef_properties", "list metadata properties", f"GET {prop}"),
        write("modify_metadef_property", "change a metadata property", f"PUT {prop}/{{property_name}}"),
        write("add_metadef_property", "add a metadata property", f"POST {prop}"),
        write("remove_metadef_property", "remove a metadata property", f"DELETE {prop}/{{property_name}}"),
        read("get_metadef_tag", "read a metadata tag", f"GET {tag}/{{tag_name}}"),
        read("get_metadef_tags", "list metadata tags", f"GET {tag}"),
        write("modify_metadef_tag", "rename a metadata tag", f"PUT {tag}/{{tag_name}}"),
        write("add_metadef_tag", "add a metadata tag", f"POST {tag}/{{tag_name}}"),
        write("add_metadef_tags", "replace the metadata tags", f"POST {tag}"),
        write("delete_metadef_tag", "delete a metadata tag", f"DELETE {tag}/{{tag_name}}"),
        write("delete_metadef_tags", "delete all metadata tags of a namespace", f"DELETE {tag}"),
    )


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "default",
        "",
        "Base of older rules; stands in for no rule here.",
        reads=True,
        legacy=_ADMIN,
        base=True,
    ),
    Rule("context_is_admin", "role:admin", "Who counts as administrator.", reads=True, base=True),
    Rule(
        "service_api",
        "role:service or service_roles:service or role:admin",
        "Who counts as another service, by his own roles or those of the token in X-Service-Token.",
        reads=True,
        base=True,
    ),
    Rule(
        "add_image",
        f"{_ADMIN} or ({_MEMBER} and project_id:%(owner)s)",
        "create an image",
        ("POST /v2/images",),
        legacy=_OPEN,
    ),
    Rule("delete_image", _ADMIN_OR_MEMBER, "delete this image", (f"DELETE {_IMAGE}",), legacy=_OPEN),
    Rule("get_image", _GET, "read this image", (f"GET {_IMAGE}",), reads=True, legacy=_OPEN),
    Rule("get_images", _ADMIN_OR_READER, "list images", ("GET /v2/images",), reads=True, legacy=_OPEN),
    Rule(
        "modify_image",
        _ADMIN_OR_MEMBER,
        "change this image",
        (f"PATCH {_IMAGE}", f"PUT {_IMAGE}/tags/{{tag}}", f"DELETE {_IMAGE}/tags/{{tag}}"),
        legacy=_OPEN,
    ),
    Rule("publicize_image", _ADMIN, "make this image public", ("POST /v2/images", f"PATCH {_IMAGE}")),
    Rule(
        "communitize_image",
        _ADMIN_OR_MEMBER,
        "make this a community image",
        ("POST /v2/images", f"PATCH {_IMAGE}"),
        legacy=_OPEN,
    ),
    Rule(
        "download_image",
        _DOWNLOAD,
        "download the data of this image",
        (f"GET {_IMAGE}/file",),
        reads=True,
        legacy=_OPEN,
    ),
    Rule(
        "download_from_store",
        _DOWNLOAD,
        "choose the store of a download",
        (f"GET {_IMAGE}/file",),
        reads=True,
    ),
    Rule("upload_image", _ADMIN_OR_MEMBER, "upload data for this image", (f"PUT {_IMAGE}/file",), legacy=_OPEN),
    Rule(
        "choose_store",
        "rule:upload_image",
        "choose the store of an upload",
        (f"PUT {_IMAGE}/file", f"PUT {_IMAGE}/stage", f"POST {_IMAGE}/import"),
        note="Of this service only. By default everyone who may upload; to keep the choice to administrators,"
        ' write `"choose_store": "rule:context_is_admin"`. Uploads that name no store go to the default one.',
    ),
    Rule(
        "restore_image",
        "rule:context_is_admin or (role:manager and project_id:%(project_id)s)",
        "have this deleted image back",
        (f"POST {_IMAGE}/actions/restore",),
        note="Of this service only. By default administrators, and managers of the project whose image it was; only"
        " while its deletion is delayed (delayed_delete).",
    ),
    Rule(
        "delete_image_location",
        _ADMIN,
        "remove a location of this image",
        (f"PATCH {_IMAGE}", f"POST {_IMAGE}/actions/move"),
        legacy=_OPEN,
    ),
    Rule(
        "get_image_location",
        _GET,
        "read the locations of this image",
        (f"GET {_IMAGE}",),
        reads=True,
        legacy=_OPEN,
        note="By default whoever sees the image, so that those who clone it can, where the operator shows locations at"
        " all: upstream has a narrower default that nothing asks there.",
    ),
    Rule(
        "set_image_location",
        _ADMIN_OR_MEMBER,
        "set a location of this image",
        (f"PATCH {_IMAGE}",),
        legacy=_OPEN,
    ),
    Rule(
        "add_image_location",
        f"rule:service_api or ({_MEMBER} and project_id:%(owner)s)",
        "add a location to this image",
        (f"POST {_IMAGE}/locations",),
    ),
    Rule(
        "register_private_address",
        "rule:service_api",
        "register data at an address that is not public",
        (f"POST {_IMAGE}/locations", f"PATCH {_IMAGE}"),
        note="Of this service only. Whoever passes can make the service ask any server that it reaches; a location"
        " that somebody else registers is never read from an address that is not public.",
    ),
    Rule(
        "fetch_image_location",
        "rule:service_api",
        "read all locations of this image",
        (f"GET {_IMAGE}/locations",),
        reads=True,
    ),
    Rule("add_member", _ADMIN_OR_MEMBER, "share this image", (f"POST {_IMAGE}/members",), legacy=_OPEN),
    Rule(
        "delete_member",
        _ADMIN_OR_MEMBER,
        "end the sharing of this image",
        (f"DELETE {_IMAGE}/members/{{member_id}}",),
        legacy=_OPEN,
    ),
    Rule(
        "get_member",
        _MEMBERSHIP,
        "read this member of the image",
        (f"GET {_IMAGE}/members/{{member_id}}",),
        reads=True,
        legacy=_OPEN,
    ),
    Rule(
        "get_members",
        _MEMBERSHIP,
        "list the members of this image",
        (f"GET {_IMAGE}/members",),
        reads=True,
        legacy=_OPEN,
    ),
    Rule(
        "modify_member",
        f"{_ADMIN} or (role:member and project_id:%(member_id)s)",
        "answer for this member of the image",
        (f"PUT {_IMAGE}/members/{{member_id}}",),
        legacy=_OPEN,
    ),
    Rule("manage_image_cache", _ADMIN, "manage the image cache"),
    Rule(
        "deactivate",
        _ADMIN_OR_MEMBER,
        "deactivate this image",
        (f"POST {_IMAGE}/actions/deactivate",),
        legacy=_OPEN,
    ),
    Rule(
        "reactivate",
        _ADMIN_OR_MEMBER,
        "reactivate this image",
        (f"POST {_IMAGE}/actions/reactivate",),
        legacy=_OPEN,
    ),
    Rule(
        "copy_image",
        _ADMIN,
        "copy this image to other stores",
        (f"POST {_IMAGE}/import", f"POST {_IMAGE}/actions/move"),
    ),
    Rule(
        "list_cached_nodes",
        _ADMIN,
        "list the nodes that cache an image",
        ("GET /v2/cache/nodes/{image_id}",),
        reads=True,
    ),
    Rule(
        "cache_image",
        _ADMIN,
        "queue an image for the cache",
        ("PUT /v2/cache/{image_id}",),
        legacy=_OLD_CACHE,
    ),
    Rule("cache_list", _ADMIN, "list the image cache", ("GET /v2/cache",), reads=True, legacy=_OLD_CACHE),
    Rule(
        "cache_delete",
        _ADMIN,
        "remove images from the cache",
        ("DELETE /v2/cache", "DELETE /v2/cache/{image_id}"),
        legacy=_OLD_CACHE,
    ),
    Rule("cache_clean", _ADMIN, "clean the image cache", ("POST /v2/cache/clean",)),
    Rule("cache_prune", _ADMIN, "prune the image cache", ("POST /v2/cache/prune",)),
    Rule(
        "stores_info_detail",
        f"{_ADMIN} or rule:service_api",
        "read the details of the stores",
        ("GET /v2/info/stores/detail",),
        reads=True,
        legacy=_ADMIN,
    ),
    Rule("get_task", _OPEN, "read a task", ("GET /v2/tasks/{task_id}",), reads=True, legacy=_OPEN),
    Rule("get_tasks", _OPEN, "list tasks", ("GET /v2/tasks",), reads=True, legacy=_OPEN),
    Rule("add_task", _OPEN, "add a task", ("POST /v2/tasks",), legacy=_OPEN),
    Rule("modify_task", _OPEN, "change a task", ("DELETE /v2/tasks/{task_id}",), note="No call asks for it."),
    Rule(
        "tasks_api_access",
        _ADMIN,
        "use the tasks API",
        ("GET /v2/tasks", "GET /v2/tasks/{task_id}", "POST /v2/tasks", "DELETE /v2/tasks/{task_id}"),
    ),
    *_metadef(),
)

BY_NAME: Final = {rule.name: rule for rule in RULES}
