# Asks the machine service of the chaos test to create or destroy machines.
#
# With the arguments of ansible-playbook (`-e @VARIABLES PLAYBOOK`), it is a stand-in for ansible-playbook: it prints the output and
# writes the events from the response. A playbook calls it with `PORT ACTION DUFFY_IN`: it prints the result, for set_fact.
import json
import os
import socket
import sys


def send_request(port, request):
    with socket.create_connection(("127.0.0.1", int(port))) as service:
        service.sendall(json.dumps(request).encode() + b"\n")
        response = service.makefile().readline()
    if not response:
        sys.exit("the machine service closed the connection")
    return json.loads(response)


def read_variables(path):
    # The interpreter starts without the site packages, which is faster. PyYAML is the only one that is necessary.
    version = "python{}.{}".format(*sys.version_info)
    environment = os.path.dirname(os.path.dirname(sys.executable))
    sys.path.append(os.path.join(environment, "lib", version, "site-packages"))
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))
    with open(path) as file:
        return yaml.load(file, loader)


if sys.argv[1] == "-e":
    variables = read_variables(sys.argv[2][1:])
    action = os.path.basename(sys.argv[3]).partition(".")[0]
    request = {"action": action, "nodes": variables["duffy_in"]["nodes"]}
    response = send_request(variables["machine_service"], request)
    print(response["print"], flush=True)
    with open(os.environ["DUFFY_ANSIBLE_EVENTS"], "a") as events:
        events.write(response["events"])
else:
    port, action, nodes = sys.argv[1:]
    response = send_request(port, {"action": action, "nodes": json.loads(nodes)["nodes"]})
    print(json.dumps(response["result"]))
sys.exit(response["exit"])
