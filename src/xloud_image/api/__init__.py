"""HTTP: routes, requests and answers. What a call does is for `services`; who may do it for `policy`."""
