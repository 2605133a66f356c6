// The vCenter simulator of govmomi as one program, for tests: a server with TLS, one user, datacenters and
// datastores that are plain folders. What the library leaves out of /folder is added here (sessions, statuses),
// and what a test wants to go wrong is set while it runs: see knobs. What tests do with it is not known here.
//
// Flags: -listen -user -cert -key -datacenters -datastores -folders -idle. The password is in VCSIM_PASSWORD; data
// goes below TMPDIR and is gone when the program ends.
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// knobs is what PUT /control sets, all at once; a field that is left out is off.
type knobs struct {
	Room         map[string]int64 `json:"room"`         // "DC0/LocalDS_0": bytes that fit in; told by RefreshDatastore
	FullStatus   int              `json:"full_status"`  // the answer to a PUT that does not fit; 507 when left out
	Swallow      int64            `json:"swallow"`      // bytes of a PUT that are kept; the rest is lost and 201 is answered
	Status       int              `json:"status"`       // of every answer to /folder
	Rate         int64            `json:"rate"`         // bytes per second of each transfer
	Break        int64            `json:"break"`        // a GET ends after so many bytes
	NoRanges     bool             `json:"no_ranges"`    // a GET knows no ranges
	Denied       bool             `json:"denied"`       // no permission to change anything
	Locked       []string         `json:"locked"`       // names of files that something holds
	TaskSeconds  float64          `json:"task_seconds"` // how long a task takes
	Inaccessible []string         `json:"inaccessible"` // datastores as in room
	Late         float64          `json:"late"`         // seconds until a PUT makes its file
	Compress     bool             `json:"compress"`     // a GET is answered with gzip to whoever takes it
}

var (
	guard   sync.Mutex
	current knobs
	polls   int // how often a task was looked at since the knobs were set
)

func now() knobs {
	guard.Lock()
	defer guard.Unlock()
	return current
}

// files is the library's FileManager with tasks that take time, permissions and locks.
type files struct{ *simulator.FileManager }

func (f *files) fault(names ...string) types.BaseMethodFault {
	k := now()
	if k.Denied {
		return &types.NoPermission{Object: f.Self, PrivilegeId: "Datastore.FileManagement"}
	}
	for _, name := range names {
		for _, locked := range k.Locked {
			if path.Base(name) == locked {
				return &types.FileLocked{FileFault: types.FileFault{File: name}}
			}
		}
	}
	return nil
}

// task does `work`, a call of the library that ends in a task of its own, in a task that the client sees.
func (f *files) task(name string, work func() types.ManagedObjectReference, touched ...string) types.ManagedObjectReference {
	task := simulator.CreateTask(f, name, nil)
	run := func() {
		fault := f.fault(touched...)
		if fault == nil {
			simulator.Map.WithLock(f, func() {
				if inner := simulator.Map.Get(work()).(*simulator.Task); inner.Info.Error != nil {
					fault = inner.Info.Error.Fault
				}
			})
		}
		simulator.Map.WithLock(task, func() {
			task.Execute = func(*simulator.Task) (types.AnyType, types.BaseMethodFault) { return nil, fault }
			task.Run()
		})
	}
	seconds := now().TaskSeconds
	go func() {
		time.Sleep(time.Duration(seconds * float64(time.Second)))
		run()
	}()
	return task.Self
}

func (f *files) DeleteDatastoreFileTask(req *types.DeleteDatastoreFile_Task) soap.HasFault {
	work := func() types.ManagedObjectReference {
		return f.FileManager.DeleteDatastoreFileTask(req).(*methods.DeleteDatastoreFile_TaskBody).Res.Returnval
	}
	return &methods.DeleteDatastoreFile_TaskBody{Res: &types.DeleteDatastoreFile_TaskResponse{
		Returnval: f.task("deleteDatastoreFile", work, req.Name),
	}}
}

func (f *files) MoveDatastoreFileTask(req *types.MoveDatastoreFile_Task) soap.HasFault {
	work := func() types.ManagedObjectReference {
		return f.FileManager.MoveDatastoreFileTask(req).(*methods.MoveDatastoreFile_TaskBody).Res.Returnval
	}
	return &methods.MoveDatastoreFile_TaskBody{Res: &types.MoveDatastoreFile_TaskResponse{
		Returnval: f.task("moveDatastoreFile", work, req.SourceName),
	}}
}

func (f *files) MakeDirectory(req *types.MakeDirectory) soap.HasFault {
	if fault := f.fault(); fault != nil {
		return &methods.MakeDirectoryBody{Fault_: simulator.Fault("denied", fault)}
	}
	return f.FileManager.MakeDirectory(req)
}

// entities repairs Task.info.entity: a managed entity or nothing stands there on a vCenter, the library puts the
// FileManager there, and clients that check types refuse it.
type entities struct{}

func (entities) Reference() types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "Repair", Value: "entities"}
}
func (entities) UpdateObject(mo.Reference, []types.PropertyChange) {}
func (entities) RemoveObject(types.ManagedObjectReference)         {}
func (entities) PutObject(object mo.Reference) {
	if task, ok := object.(*simulator.Task); ok && task.Info.Entity != nil {
		if _, ok := simulator.Map.Get(*task.Info.Entity).(mo.Entity); !ok {
			task.Info.Entity = nil
		}
	}
}

// datastores by "datacenter/datastore", the datacenter by its last name.
func datastores() map[string]*simulator.Datastore {
	found := map[string]*simulator.Datastore{}
	for _, entity := range simulator.Map.All("Datacenter") {
		dc := entity.(*simulator.Datacenter)
		for _, ref := range dc.Datastore {
			ds := simulator.Map.Get(ref).(*simulator.Datastore)
			found[dc.Name+"/"+ds.Name] = ds
		}
	}
	return found
}

func used(ds *simulator.Datastore) (total int64) {
	_ = filepath.WalkDir(ds.Info.GetDatastoreInfo().Url, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			if info, err := entry.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}

// tell puts into the summaries what the knobs say.
func tell() {
	k := now()
	shut := map[string]bool{}
	for _, name := range k.Inaccessible {
		shut[name] = true
	}
	for name, ds := range datastores() {
		simulator.Map.WithLock(ds, func() {
			ds.Summary.Accessible = !shut[name]
			if room, ok := k.Room[name]; ok {
				free := room - used(ds)
				if free < 0 {
					free = 0
				}
				ds.Summary.FreeSpace, ds.Info.GetDatastoreInfo().FreeSpace = free, free
				ds.Summary.Capacity = room
			}
		})
	}
}

var errFull = errors.New("no room")

// incoming is the body of a PUT: paced, and cut where the room or `keep` ends.
type incoming struct {
	io.ReadCloser
	room, keep, rate int64 // less than 0: without end
	full             bool
}

func (b *incoming) Read(p []byte) (int, error) {
	if b.full {
		return 0, errFull
	}
	if len(p) > 65536 {
		p = p[:65536]
	}
	n, err := b.ReadCloser.Read(p)
	pace(n, b.rate)
	if b.room >= 0 {
		if int64(n) > b.room {
			n, b.full, err = int(b.room), true, nil
		}
		b.room -= int64(n)
	}
	if b.keep >= 0 {
		if int64(n) >= b.keep {
			n, err = int(b.keep), io.EOF
			_, _ = io.Copy(io.Discard, b.ReadCloser)
		}
		b.keep -= int64(n)
	}
	return n, err
}

// outgoing is an answer: paced, broken off, or with another status.
type outgoing struct {
	http.ResponseWriter
	rate, left int64
	set        bool
}

func (o *outgoing) WriteHeader(code int) { o.set = true; o.ResponseWriter.WriteHeader(code) }
func (o *outgoing) Write(p []byte) (int, error) {
	o.set = true
	if o.rate == 0 && o.left == 0 {
		return o.ResponseWriter.Write(p)
	}
	total := 0
	for len(p) > 0 {
		part := p
		if len(part) > 65536 {
			part = part[:65536]
		}
		n, err := o.ResponseWriter.Write(part)
		total += n
		if err != nil {
			return total, err
		}
		p = p[n:]
		pace(n, o.rate)
		if o.left > 0 {
			if o.left -= int64(n); o.left <= 0 {
				o.ResponseWriter.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
		}
	}
	return total, nil
}

// ReadFrom hides the one of the library below, which would pass Write by; without a knob it is used.
func (o *outgoing) ReadFrom(r io.Reader) (int64, error) {
	if o.rate == 0 && o.left == 0 {
		o.set = true
		if from, ok := o.ResponseWriter.(io.ReaderFrom); ok {
			return from.ReadFrom(r)
		}
	}
	return io.Copy(struct{ io.Writer }{o}, r)
}

func pace(bytes int, rate int64) {
	if rate > 0 {
		time.Sleep(time.Duration(float64(bytes) / float64(rate) * float64(time.Second)))
	}
}

const askTime = `<?xml version="1.0"?><Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body>` +
	`<CurrentTime xmlns="urn:vim25"><_this type="ServiceInstance">ServiceInstance</_this></CurrentTime></Body></Envelope>`
const refreshed = `<?xml version="1.0" encoding="UTF-8"?><Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body>` +
	`<RefreshDatastoreResponse xmlns="urn:vim25"></RefreshDatastoreResponse></Body></Envelope>`

type front struct {
	library        http.Handler
	user, password string
}

func (s *front) ask(method, target, body string, cookie *http.Cookie) int {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if cookie != nil {
		r.AddCookie(cookie)
	}
	w := httptest.NewRecorder()
	s.library.ServeHTTP(w, r)
	return w.Code
}

func (s *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/control"):
		s.control(w, r)
	case strings.HasPrefix(r.URL.Path, "/folder"):
		log.Printf("%s %s length %d %v %s", r.Method, r.URL, r.ContentLength, r.TransferEncoding, r.Header.Get("Range"))
		s.folder(w, r)
	case strings.HasPrefix(r.URL.Path, "/sdk") && r.Method == http.MethodPost:
		s.sdk(w, r)
	default:
		s.library.ServeHTTP(w, r)
	}
}

// sdk repairs the answer of RefreshDatastore, which the library leaves empty, and counts looks at tasks.
func (s *front) sdk(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(http.MaxBytesReader(w, r.Body, 16<<20))
	r.Body = io.NopCloser(bytes.NewReader(body))
	if bytes.Contains(body, []byte(`type="Task"`)) {
		guard.Lock()
		polls++
		guard.Unlock()
	}
	if !bytes.Contains(body, []byte("RefreshDatastore")) {
		s.library.ServeHTTP(w, r)
		return
	}
	answer := httptest.NewRecorder()
	s.library.ServeHTTP(answer, r)
	tell()
	if answer.Body.Len() == 0 {
		answer.Body.WriteString(refreshed)
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

func (s *front) folder(w http.ResponseWriter, r *http.Request) {
	k := now()
	cookie, err := r.Cookie(soap.SessionCookieName)
	known := err == nil && s.ask(http.MethodPost, "/sdk", askTime, cookie) == http.StatusOK
	if user, password, basic := r.BasicAuth(); !known && basic {
		known = user == s.user && password == s.password
	}
	switch {
	case !known:
		w.Header().Set("WWW-Authenticate", `Basic realm="VMware HTTP server"`)
		http.Error(w, "unauthorized", http.StatusUnauthorized)
	case k.Status != 0:
		http.Error(w, "as told", k.Status)
	case r.Method == http.MethodPut && k.Denied:
		http.Error(w, "forbidden", http.StatusForbidden)
	case r.Method == http.MethodPut:
		time.Sleep(time.Duration(k.Late * float64(time.Second)))
		s.put(w, r, k)
	case k.Compress && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip"):
		answer := httptest.NewRecorder()
		s.library.ServeHTTP(answer, r)
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(answer.Code)
		packed := gzip.NewWriter(w)
		_, _ = packed.Write(answer.Body.Bytes())
		_ = packed.Close()
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		if k.NoRanges {
			r.Header.Del("Range")
		}
		s.library.ServeHTTP(&outgoing{ResponseWriter: w, rate: k.Rate, left: k.Break}, r)
	default: // the library would answer as to GET
		http.Error(w, "not simulated", http.StatusNotImplemented)
	}
}

// put gives the statuses of a vCenter: 201 for a new file, 200 for one that was there.
func (s *front) put(w http.ResponseWriter, r *http.Request, k knobs) {
	status := http.StatusOK
	if s.ask(http.MethodHead, r.URL.String(), "", nil) == http.StatusNotFound {
		status = http.StatusCreated
	}
	body := &incoming{ReadCloser: r.Body, room: -1, keep: -1, rate: k.Rate}
	name := path.Base(r.URL.Query().Get("dcPath")) + "/" + r.URL.Query().Get("dsName")
	if room, ok := k.Room[name]; ok {
		if ds := datastores()[name]; ds != nil {
			if body.room = room - used(ds); body.room < 0 {
				body.room = 0
			}
		}
	}
	if k.Swallow > 0 {
		body.keep = k.Swallow
	}
	r.Body = body
	answer := &outgoing{ResponseWriter: w}
	s.library.ServeHTTP(answer, r)
	switch {
	case answer.set:
	case body.full && k.FullStatus != 0:
		w.WriteHeader(k.FullStatus)
	case body.full:
		w.WriteHeader(http.StatusInsufficientStorage)
	default:
		w.WriteHeader(status)
	}
}

// control: PUT sets the knobs, DELETE ends all sessions, GET tells {"sessions": n, "polls": n}.
func (s *front) control(w http.ResponseWriter, r *http.Request) {
	view := &simulator.Session{Registry: simulator.NewRegistry()}
	manager := simulator.Map.SessionManager()
	list := view.Get(manager.Self).(*simulator.SessionManager).SessionList
	switch r.Method {
	case http.MethodPut:
		var k knobs
		decoder := json.NewDecoder(r.Body)
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&k); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		guard.Lock()
		current, polls = k, 0
		guard.Unlock()
		if r.URL.Query().Get("tell") != "no" {
			tell()
		}
	case http.MethodDelete:
		for _, one := range list {
			manager.TerminateSession(&simulator.Context{Session: view}, &types.TerminateSession{SessionId: []string{one.Key}})
		}
	default:
		guard.Lock()
		defer guard.Unlock()
		_ = json.NewEncoder(w).Encode(map[string]int{"sessions": len(list), "polls": polls})
	}
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8989", "host:port")
	user := flag.String("user", "administrator@vsphere.local", "who may log in")
	cert := flag.String("cert", "", "certificate, PEM")
	key := flag.String("key", "", "its key, PEM")
	dcs := flag.Int("datacenters", 2, "number of datacenters")
	dss := flag.Int("datastores", 2, "number of datastores in each")
	folders := flag.Int("folders", 0, "how many of the datacenters are in a folder")
	idle := flag.Duration("idle", 0, "after which an unused session ends; 0: never")
	flag.Parse()

	simulator.SessionIdleTimeout = *idle
	model := simulator.VPX()
	model.Datacenter, model.Datastore, model.Folder = *dcs, *dss, *folders
	model.Cluster, model.ClusterHost, model.Host, model.Machine, model.Portgroup = 1, 1, 0, 0, 0
	if err := model.Create(); err != nil {
		log.Fatal(err)
	}
	simulator.Map.AddHandler(entities{})
	simulator.Map.Put(&files{simulator.Map.FileManager()})
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		log.Fatal(err)
	}
	model.Service.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	password := os.Getenv("VCSIM_PASSWORD")
	model.Service.Listen = &url.URL{Host: *listen, User: url.UserPassword(*user, password)}
	server := model.Service.NewServer()
	server.Server.Config.Handler = &front{library: model.Service.ServeMux, user: *user, password: password}
	log.Printf("ready at https://%s/sdk", *listen)

	end := make(chan os.Signal, 1)
	signal.Notify(end, os.Interrupt, syscall.SIGTERM)
	<-end
	// connections that clients keep open are not waited for
	go func() { time.Sleep(time.Second); model.Remove(); os.Exit(0) }()
	server.Close()
	model.Remove()
}
