"""What goes over the wire: `shared` (requests and answers), `operations` (call results), `errors`."""
