"""Rows P1 to P5 and P9 of docs/reliability.md: names that run code, in every carrier. All inert: what
they would do is touch a canary."""

from . import carriers
from .opcodes import CANARY, call, glob, pairs, stack_glob, state_dict, tensor, text, tup, whole

TOUCH = f"touch {CANARY}"
OPEN = f"open({CANARY!r}, 'w')"

# Row P1: name and the argument that it would be called with.
CLASSIC = [
    ("posix.system", TOUCH), ("os.system", TOUCH), ("nt.system", TOUCH), ("os.popen", TOUCH),
    ("posix.popen", TOUCH), ("os.execvp", TOUCH), ("posix.execv", TOUCH), ("posix.posix_spawn", TOUCH),
    ("os.spawnlp", TOUCH), ("os.remove", CANARY), ("posix.unlink", CANARY), ("os.putenv", TOUCH),
    ("subprocess.Popen", TOUCH), ("subprocess.run", TOUCH), ("subprocess.call", TOUCH),
    ("subprocess.check_output", TOUCH), ("subprocess.check_call", TOUCH), ("subprocess.getoutput", TOUCH),
    ("subprocess.getstatusoutput", TOUCH), ("_posixsubprocess.fork_exec", TOUCH), ("pty.spawn", TOUCH),
    ("commands.getoutput", TOUCH), ("runpy._run_code", OPEN), ("runpy.run_path", CANARY),
    ("runpy.run_module", CANARY), ("builtins.eval", OPEN), ("builtins.exec", OPEN),
    ("builtins.compile", OPEN), ("builtins.open", CANARY), ("builtins.getattr", "os"),
    ("builtins.setattr", "os"), ("builtins.__import__", "os"), ("builtins.breakpoint", ""),
    ("builtins.input", ""), ("builtins.globals", ""), ("builtins.vars", "os"), ("builtins.map", "os"),
    ("builtins.type", "x"), ("builtins.memoryview", "x"), ("__builtin__.eval", OPEN),
    ("__builtin__.exec", OPEN), ("__builtin__.execfile", CANARY), ("__builtin__.apply", TOUCH),
    ("__builtin__.getattr", "os"), ("__builtin__.open", CANARY), ("__builtin__.file", CANARY),
    ("__builtin__.__import__", "os"), ("shutil.rmtree", CANARY), ("shutil.copyfile", CANARY),
    ("sys.exit", ""), ("sys.modules", ""), ("pickle.loads", "x"), ("_pickle.loads", "x"),
    ("dill.loads", "x"), ("dill._dill._import_module", "os"), ("joblib.load", CANARY),
]

# Row P2: the standard library and friends.
STDLIB = """
pip.main pip._internal.main pip._internal.cli.main.main pydoc.locate pydoc.pipepager pydoc.ttypager
timeit.timeit timeit.main timeit.repeat bdb.Bdb.run pdb.run pdb.runeval pdb.set_trace cProfile.run
cProfile.runctx profile.run profile.Profile.runctx trace.Trace.run doctest.debug_script doctest.run_docstring_examples
venv.create venv.main ensurepip._run_pip ensurepip.bootstrap idlelib.pyshell.ModifiedInterpreter.runcommand
idlelib.run.Executive.runcode idlelib.calltip.get_entity idlelib.debugobj.ObjectTreeItem.SetText
code.InteractiveInterpreter.runcode code.InteractiveInterpreter code.interact lib2to3.pgen2.pgen.ParserGenerator
lib2to3.pgen2.grammar.Grammar.loads asyncio.unix_events._UnixSubprocessTransport._start
asyncio.create_subprocess_shell imaplib.IMAP4_stream uuid._get_command_stdout uuid._popen
_osx_support._read_output _osx_support._find_build_tool _aix_support._read_cmd_output _pyrepl.pager.pipe_pager
ctypes.CDLL ctypes.cdll.LoadLibrary ctypes.pythonapi ctypes.PyDLL distutils.file_util.write_file
distutils.spawn.spawn logging.FileHandler logging.config.listen logging.config.dictConfig _io.FileIO io.open
io.open_code _io.open marshal.loads marshal.load types.CodeType types.FunctionType types.ModuleType
cloudpickle.loads cloudpickle.cloudpickle._make_function cloudpickle.cloudpickle.subimport importlib.import_module
importlib.__import__ importlib.machinery.SourceFileLoader importlib.util.module_from_spec
imp.load_source imp.load_dynamic zipimport.zipimporter multiprocessing.Process multiprocessing.util.spawnv_passfds
multiprocessing.popen_fork.Popen concurrent.futures.ProcessPoolExecutor test.support.script_helper.assert_python_ok
test.support.run_in_subinterp _testcapi.run_in_subinterp codecs.open codeop.compile_command sqlite3.connect
tempfile.NamedTemporaryFile tempfile.mkstemp webbrowser.open antigravity.geohash this.s signal.signal
threading.Thread _thread.start_new_thread gc.get_objects inspect.getattr_static linecache.updatecache
nturl2path.url2pathname platform.popen sched.scheduler shelve.open site.execsitecustomize smtpd.SMTPServer
tarfile.open zipfile.ZipFile xmlrpc.client.ServerProxy pathlib.Path.write_text pathlib.Path.unlink
fileinput.FileInput dbm.open mailcap.findmatch netrc.netrc optparse.OptionParser
""".split()

# Row P3: names that lead to other names.
INDIRECT = """
pkgutil.resolve_name operator.attrgetter operator.methodcaller operator.itemgetter _operator.attrgetter
_operator.methodcaller functools.partial functools.reduce functools.partialmethod copyreg._reconstructor
copyreg.__newobj__ copyreg.add_extension copyreg._inverted_registry weakref.finalize atexit.register
itertools.starmap contextlib.ExitStack types.MethodType unittest.mock._importer typing.get_type_hints
collections.defaultdict collections.OrderedDict.__init__ collections.namedtuple dataclasses.make_dataclass
""".split()

# Row P4: machine-learning libraries.
LIBRARIES = """
torch.utils.bottleneck.__main__.run_cprofile torch.utils.bottleneck.__main__.run_autograd_prof
torch.utils.collect_env.run torch.utils.collect_env.run_and_read_all torch._inductor.codecache.compile_file
torch._inductor.codecache.PyCodeCache.load torch.fx.experimental.symbolic_shapes.ShapeEnv.evaluate_guards_expression
torch._dynamo.guards.GuardBuilder.get torch.jit.unsupported_tensor_ops.execWrapper torch.jit.load torch.jit.script
torch.jit._script.RecursiveScriptModule torch.utils._config_module.ConfigModule.load_config torch.load
torch.storage._load_from_bytes torch.serialization.load torch.hub.load torch.hub.load_state_dict_from_url
torch.utils.cpp_extension.load_inline torch.utils.cpp_extension.load torch.ops.load_library
torch.classes.load_library torch._utils._import_dotted_name torch._C._jit_import torch.package.PackageImporter
torch.utils.data.datapipes.utils.decoder.basichandlers torch.utils._python_dispatch.TorchDispatchMode
torch.distributed.rpc.rpc_sync torch.distributed.elastic.multiprocessing.api.start_processes
torch.multiprocessing.spawn torch.fx.graph_module._forward_from_src torch.fx.graph_module.reduce_graph_module
torch.nn.modules.container.Sequential torch._tensor._rebuild_from_type torch._utils._rebuild_xla_tensor
torch.storage._StorageBase torch.Storage torch.FooStorage numpy.f2py.crackfortran.getlincoef
numpy.f2py.crackfortran.myeval numpy.testing._private.utils.runstring numpy.testing.utils.runstring
numpy.load numpy.lib.npyio.load numpy.distutils.exec_command.exec_command numpy.core.multiarray._reconstruct
numpy.core.multiarray.scalar numpy._core.multiarray._reconstruct numpy.dtype numpy.ndarray numpy.memmap
transformers.AutoModel.from_pretrained transformers.utils.hub.cached_file tensorflow.io.write_file
tensorflow.python.ops.io_ops.write_file keras.models.load_model keras.src.saving.serialization_lib.deserialize_keras_object
pandas.io.common.get_handle pandas.eval pandas.read_pickle sklearn.utils._joblib.load joblib.numpy_pickle.load
nltk.data.load onnx.load accelerate.utils.other.load deepspeed.runtime.engine.DeepSpeedEngine argparse.Namespace
pytorch_lightning.callbacks.ModelCheckpoint omegaconf.dictconfig.DictConfig
""".split()

# Row P5: out over the network.
NETWORK = """
socket.socket socket.create_connection _socket.socket http.client.HTTPSConnection http.client.HTTPConnection
httplib.HTTPSConnection http.server.HTTPServer urllib.request.urlopen urllib.request.urlretrieve urllib2.urlopen
urllib.urlopen ssl.SSLSocket ssl.get_server_certificate requests.get requests.post requests.api.get
requests.sessions.Session aiohttp.client.ClientSession aiohttp.request httpx.get ftplib.FTP smtplib.SMTP
telnetlib.Telnet poplib.POP3 asyncio.open_connection paramiko.SSHClient boto3.client huggingface_hub.hf_hub_download
""".split()

# Names whose payload goes into every carrier.
EVERYWHERE = ["posix.system", "builtins.eval", "builtins.exec", "subprocess.Popen", "runpy._run_code",
              "pkgutil.resolve_name", "torch.jit.load", "numpy.f2py.crackfortran.getlincoef"]


def payload(name, argument=TOUCH):
    """The call, as a value in a state dict, before the tensors."""
    module, _, function = name.rpartition(".")
    return pairs(("x", call(module, function, text(argument))), ("w", tensor()))


def rows():
    """(name of the case, row, what it is, file's bytes, rule, phrase of the message)."""
    everywhere = {}
    for row, names in [("P1", CLASSIC), ("P2", [(n, TOUCH) for n in STDLIB]),
                       ("P3", [(n, TOUCH) for n in INDIRECT]), ("P4", [(n, TOUCH) for n in LIBRARIES]),
                       ("P5", [(n, "http://127.0.0.1:9/") for n in NETWORK])]:
        for number, (name, argument) in enumerate(names):
            pickle = whole(payload(name, argument))
            slug = f"{row.lower()}-{name.replace('.', '_')}"
            # Every other one deflated: the carriers take turns.
            kind, carrier = [("zip", carriers.stored), ("deflated zip", carriers.packed)][number % 2]
            yield slug, row, f"{name} in a {kind}", carrier(pickle), "ForbiddenGlobal", f"`{name}`"
            if name in EVERYWHERE:
                everywhere[name] = (row, pickle, carrier)
    for name, (row, pickle, used) in everywhere.items():
        slug = f"{row.lower()}-{name.replace('.', '_')}"
        found = f"`{name}`"
        for kind, carrier in [("stored", carriers.stored), ("deflated", carriers.packed)]:
            if carrier != used:
                yield f"{slug}-{kind}", row, f"{name}, {kind} carrier", carrier(pickle), "ForbiddenGlobal", found
        yield (f"{slug}-second-pickle", row, f"{name} in a second .pkl", carriers.second_pickle(pickle),
               "ZipStructure", "one pickle")
        for position in range(1, 6):
            yield (f"{slug}-legacy-{position}", "P9" if position > 1 else row, f"{name} as pickle {position} of a legacy file",
                   carriers.legacy(position, pickle), "ForbiddenGlobal", found)
        module, _, function = name.rpartition(".")
        yield (f"{slug}-stack-global", row, f"{name} by STACK_GLOBAL",
               carriers.stored(whole(stack_glob(module, function) + tup(text(TOUCH)) + b"R", 4)), "ForbiddenGlobal", found)
        yield (f"{slug}-inst", "P6", f"{name} by INST",
               carriers.stored(whole(b"(" + text(TOUCH) + b"i" + glob(module, function)[1:])), "ForbiddenGlobal", found)
        yield (f"{slug}-no-call", row, f"{name} named and not called",
               carriers.stored(state_dict(("x", glob(module, function)), ("w", tensor()))), "ForbiddenGlobal", found)
        yield (f"{slug}-dropped", row, f"{name} called, the result dropped",
               carriers.stored(whole(call(module, function, text(TOUCH)) + b"0" + pairs(("w", tensor())))),
               "ForbiddenGlobal", found)
    dotted = [("os", "path.join.__globals__"), ("torch._utils", "_rebuild_tensor_v2.__globals__"),
              ("collections", "OrderedDict.__init__.__globals__"), ("torch", "serialization.os.system"),
              ("torch.serialization", "os.system"), ("builtins", "set.__class__")]
    for number, (module, name) in enumerate(dotted):
        yield (f"p3-dotted-{number}", "P3", f"{module} and the dotted {name} by STACK_GLOBAL",
               carriers.stored(whole(stack_glob(module, name) + b"0" + pairs(("w", tensor())), 4)),
               "ForbiddenGlobal", f"`{module}.{name}`")
    magic = whole(call("builtins", "eval", text("0x1950a86a20f9469cfc6c")))
    yield ("p9-magic-by-eval", "P9", "the magic number made by eval (pytorch_magic_bypass)",
           carriers.legacy(1, magic), "ForbiddenGlobal", "`builtins.eval`")
    yield ("p9-nested-pickle", "P9", "pickle.loads of a pickle of os.system",
           carriers.stored(whole(call("pickle", "loads", b"C" + bytes([len(b"cos\nsystem\n.")]) + b"cos\nsystem\n."))),
           "ForbiddenGlobal", "`pickle.loads`")
    yield ("p9-bare", "P9", "a bare pickle of os.system", whole(call("os", "system", text(TOUCH))),
           "ForbiddenGlobal", "`os.system`")
    yield ("p9-bare-protocol-0", "P9", "a bare pickle of os.system in protocol 0, with no magic",
           f"cos\nsystem\n(S'{TOUCH}'\ntR.".encode(), "WrongKind", "bare pickle")
